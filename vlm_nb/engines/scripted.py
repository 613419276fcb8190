"""A scripted engine: answers written by you, through the real thread, tickets and streaming.

For tests and documentation where the model is not the point::

    model = vlm_nb.load("scripted", engine="scripted", script={"colour": "red"})
    model = vlm_nb.load("scripted", engine="scripted", script=lambda request: "two dogs")
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import GenerationError, VLMError, unknown_option
from ..request import Completion, FinishReason, Request, Usage
from .base import Capabilities, ModelInfo, Progress, Ticket, forget_frames, raise_if_cancelled
from .spec import LoadSpec

ENGINE_ARGS = ("slots", "delay", "load_seconds", "model_type", "capabilities", "fingerprint")
Script = str | Mapping[str, Any] | Sequence[Any] | Callable[[Request], Any]


@dataclass(slots=True)
class _Row:
    """One running answer: the pieces that are left to push."""

    ticket: Ticket
    pieces: list[str]
    used: int = 0
    finish: FinishReason = "stop"


class ScriptedBackend:
    """Answers from ``spec.script``: a text, a mapping of prompt fragments to texts, a list (one answer after
    the other, then again from its start) or a function of the request. An exception as the answer fails the
    request. ``engine_args``: ``slots`` (8), ``delay`` seconds a token (0), ``load_seconds`` (0),
    ``model_type``, ``capabilities`` (a dict of changes), ``fingerprint`` (a name for this script: with one, a
    ledger keeps its answers; without, nothing would tell two scripts apart).
    """

    def __init__(self, spec: LoadSpec) -> None:
        for key in spec.engine_args:
            if key not in ENGINE_ARGS:
                raise unknown_option("scripted engine_args key", key, ENGINE_ARGS)
        self._spec = spec
        self._args = dict(spec.engine_args)
        self._rows: list[_Row] = []
        self._turn = 0
        abilities = {"in_flight": True, "schema": True, **self._args.get("capabilities", {})}
        self.capabilities = Capabilities(**abilities)

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Nothing to set up."""
        return contextlib.nullcontext()

    def prepare(
        self, progress: Callable[[Progress], None], cancelled: threading.Event, room: Mapping[str, int]
    ) -> None:
        """Nothing to find."""

    def open(self, progress: Callable[[Progress], None], cancelled: threading.Event) -> ModelInfo:
        """Pretend to load for ``load_seconds``, reporting as a real load does."""
        seconds = float(self._args.get("load_seconds", 0))
        for part in range(10 if seconds else 0):
            raise_if_cancelled(cancelled)
            progress(Progress(text="loading", done=part * 10.0, total=100.0))
            time.sleep(seconds / 10)
        model_type = self._args.get("model_type", "qwen2_5_vl")
        named = self._args.get("fingerprint")
        return ModelInfo(name=self._spec.model, model_type=model_type, memory=0, fingerprint=named)

    @property
    def slots(self) -> int:
        """How many answers run at once."""
        return int(self._args.get("slots", 8))

    @property
    def running(self) -> Collection[Ticket]:
        """The tickets under way."""
        return [row.ticket for row in self._rows]

    def free_slots(self) -> int:
        """Slots that are not taken."""
        return self.slots - len(self._rows)

    def admit(self, tickets: list[Ticket]) -> None:
        """Look the answers up; a failing script fails its own request only."""
        for ticket in tickets:
            try:
                answer = self._answer(ticket.request)
            except Exception as error:  # noqa: BLE001 - the script is the user's
                failed = GenerationError(f"the script failed: {error}")
                ticket.fail(forget_frames(error) if isinstance(error, VLMError) else failed)
                continue
            pieces = re.findall(r"\s*\S+|\s+$", answer)
            limit = ticket.request.generation.max_new_tokens
            finish: FinishReason = "length" if len(pieces) > limit else "stop"
            self._rows.append(_Row(ticket, pieces[:limit], finish=finish))

    def _answer(self, request: Request) -> str:
        script = self._spec.script
        if callable(script):
            script = script(request)
        elif isinstance(script, Mapping):
            script = _lookup(script, request.messages[-1].text)
        elif isinstance(script, Sequence) and not isinstance(script, str):
            self._turn += 1
            script = script[(self._turn - 1) % len(script)]
        if isinstance(script, BaseException):
            raise script
        return "ok" if script is None else str(script)

    def step(self) -> None:
        """Push one piece of every row."""
        time.sleep(float(self._args.get("delay", 0)))
        for row in list(self._rows):
            if row.used < len(row.pieces):
                row.ticket.push(row.pieces[row.used])
                row.used += 1
            if row.used >= len(row.pieces):
                self._rows.remove(row)
                self._finish(row)

    def _finish(self, row: _Row) -> None:
        request = row.ticket.request
        usage = Usage(
            image_tokens=sum(w * h // 784 for w, h in request.input_sizes),
            prompt_tokens=sum(len(m.text.split()) for m in request.messages),
            new_tokens=row.used,
            seconds=row.ticket.seconds,
            finish_reason=row.finish,
        )
        row.ticket.finish(Completion(text="".join(row.pieces), usage=usage, seen_sizes=request.input_sizes))

    def drop(self, ticket: Ticket) -> None:
        """Forget a cancelled row."""
        self._rows = [row for row in self._rows if row.ticket is not ticket]

    def close(self) -> None:
        """Nothing to free."""
        self._rows.clear()


def _lookup(script: Mapping[str, Any], prompt: str) -> Any:
    def hits() -> Iterator[Any]:
        yield from (answer for fragment, answer in script.items() if fragment and fragment in prompt)

    return next(hits(), script.get("", "ok"))
