"""Questions from the widget: one turn each, to one model or two, put on a worker thread, read by the pump."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..asking import Job, Prepared
from ..engines.base import Ticket
from ..errors import OptionError
from ..results import BBox
from . import questions
from .album import Album
from .edits import clipped
from .loading import ModelDesk
from .screen import Screen
from .state import TASKS, Answer
from .threads import Pump, Worker
from .turns import Reply, Turn, verdict

if TYPE_CHECKING:
    from ..model import VLM

TEXT_PER_SECOND = 250_000
LISTED = 200


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is needed to read the answer of a ticket."""

    turn: Turn
    reply: Reply
    model: VLM
    job: Job
    prepared: Prepared


class AskDesk:
    """The turns of a widget: ask, stop, edit, recall. ``ended`` is called with each turn that ended."""

    def __init__(
        self, screen: Screen, models: ModelDesk, album: Album, worker: Worker, ended: Callable[[Turn], None]
    ) -> None:
        self._screen, self._models, self._album, self._worker = screen, models, album, worker
        self._ended = ended
        self._pump = Pump(self._grew, self._finished)
        self._asked: dict[Ticket, _Asked] = {}
        self._lock = threading.Lock()
        self.turns: list[Turn] = []
        self.shown: Turn | None = None

    # Handlers -----------------------------------------------------------------------------------------------

    def ask(self, message: dict[str, Any]) -> Turn | None:
        """Ask about the shown image; while an answer is open this does nothing (a double click)."""
        if self._busy():
            return None
        task, prompt = str(message.get("task", "ask")), str(message.get("prompt") or "").strip()
        if task not in TASKS:
            raise OptionError(f"unknown task {task!r}; allowed are: {', '.join(TASKS)}.")
        self._album.source(self._album.index)
        region = clipped(message["region"]) if message.get("region") else None
        rival = self._models.by_id(message["rival"]) if message.get("rival") else None
        turn = self._new(task, "" if task == "caption" else prompt, region, replies=2 if rival else 1)
        self._worker.put(lambda: self._begin(turn, rival))
        return turn

    def stop(self, message: dict[str, Any]) -> None:
        """Stop the open answer (both, where two are compared); the text so far is kept."""
        turn = self.shown
        if turn is None or not turn.open:
            return
        turn.cancelled.set()
        tickets = [reply.ticket for reply in turn.replies if reply.ticket is not None]
        for ticket in tickets:
            ticket.cancel()
        if not tickets:
            self._models.give_up()

    def edit(self, message: dict[str, Any]) -> None:
        """Apply one gesture to the shown boxes. Raises OptionError."""
        turn = self.shown
        if turn is None or turn.answer.image != self._album.index:
            turn = self._new("draw", "", None, status="done")
        if turn.replies[0].prediction is None:
            turn.replies[0].prediction = questions.drawn(turn.answer, self._album)
        with self._lock:
            turn.boxes = turn.boxes.apply(message)
        self.tell()
        self._ended(turn)

    def recall(self, message: dict[str, Any]) -> None:
        """Show an earlier turn and its image again."""
        turn = next((t for t in self.turns if t.answer.number == message.get("number")), None)
        if turn is None or self._busy():
            return
        self.shown = turn
        if turn.answer.image is not None and turn.answer.image != self._album.index:
            self._album.go(turn.answer.image)
        self.tell()

    def moved(self) -> None:
        """Another image is shown: show its last turn, unless an answer is open."""
        shown, index = self.shown, self._album.index
        if shown is not None and (shown.open or shown.answer.image == index):
            return
        here = [turn for turn in self.turns if turn.answer.image == index]
        self.shown = here[-1] if here else None
        self.tell()

    def close(self) -> None:
        """Stop the open answer and the pump; what was answered stays."""
        self.stop({})
        self._pump.close()
        with self._lock:
            self._asked.clear()
        for turn in self.turns:
            turn.over.set()

    # On the worker thread -----------------------------------------------------------------------------------

    def _begin(self, turn: Turn, rival: VLM | None) -> None:
        """Put the question to each model; what goes wrong with one is that one's answer."""
        for side, reply in enumerate(turn.replies):
            try:
                model = self._models.need()
                if side and rival is model:
                    raise OptionError(f"{model.name} would be compared with itself; choose another model.")
                self._put(turn, reply, rival if side else model)
            except Exception as error:  # noqa: BLE001 - shown to the user, whatever it is
                self._fail(turn, reply, None if turn.cancelled.is_set() else error)

    def _put(self, turn: Turn, reply: Reply, model: VLM | None) -> None:
        if turn.cancelled.is_set() or model is None:
            self._end(turn, reply, reply.answer.stopped())
            return
        self._set(reply, reply.answer.running(self._models.label(model)))
        job = questions.job_of(model, reply.answer, self._album)
        self._submit(_Asked(turn, reply, model, job, model.asker.prepare(job)))

    def _submit(self, asked: _Asked) -> None:
        self._pump.start()
        with self._lock:
            ticket = asked.model.engine.submit(asked.prepared.request, self._pump.outbox)
            self._asked[ticket] = asked
            asked.reply.ticket = ticket
        if asked.turn.cancelled.is_set():
            ticket.cancel()

    # On the pump's thread -----------------------------------------------------------------------------------

    def _grew(self, ticket: Ticket) -> None:
        with self._lock:
            asked = self._asked.get(ticket)
        if asked is None or not asked.reply.answer.open:
            return
        reply, text = asked.reply, ticket.text
        reply.answer = reply.answer.grown(text)
        if time.monotonic() - reply.sent > len(text) / TEXT_PER_SECOND:
            reply.sent = time.monotonic()
            self._show_text(asked.turn)

    def _finished(self, ticket: Ticket) -> None:
        with self._lock:
            asked = self._asked.pop(ticket, None)
        if asked is None or ticket.completion is None:
            return
        turn, reply = asked.turn, asked.reply
        reply.ticket = None
        try:
            found = asked.model.finish(asked.job, asked.prepared, ticket.completion)
            prediction = questions.of_whole(found, reply.answer, self._album)
        except Exception as error:  # noqa: BLE001 - shown to the user, whatever it is
            reply.answer = replace(reply.answer, text=ticket.text)
            self._fail(turn, reply, error)
            return
        reply.prediction = prediction
        with self._lock:
            turn.boxes = turn.boxes.joined(prediction.grounded_phrases, turn.replies.index(reply))
        self._end(turn, reply, reply.answer.finished(prediction))

    # Telling the browser ------------------------------------------------------------------------------------

    def _busy(self) -> bool:
        return any(turn.open for turn in self.turns[-1:])

    def _new(
        self, task: str, prompt: str, region: BBox | None, status: Any = "waiting", replies: int = 1
    ) -> Turn:
        index = self._album.index
        answer = Answer(
            number=len(self.turns) + 1,
            status=status,
            task=task,
            prompt=prompt,
            image=index,
            label=self._album.label(index),
            region=region,
        )
        turn = Turn(tuple(Reply(answer) for _ in range(replies)))
        self.turns = [*self.turns, turn]
        self.shown = turn
        self.tell()
        return turn

    def _set(self, reply: Reply, answer: Answer) -> None:
        reply.answer = answer
        self.tell()

    def _fail(self, turn: Turn, reply: Reply, error: BaseException | None) -> None:
        """End a reply in an error, or (None) as stopped."""
        reply.error = error
        self._end(turn, reply, reply.answer.failed(error) if error else reply.answer.stopped())

    def _end(self, turn: Turn, reply: Reply, answer: Answer) -> None:
        self._set(reply, answer)
        if turn.open:
            return
        if turn.results:
            self._ended(turn)
        turn.over.set()

    def _show_text(self, turn: Turn) -> None:
        if self.shown is turn:
            self._screen.show(rival=_rival(turn), answer=turn.answer.to_dict())

    def tell(self) -> None:
        """Send the shown turn and the history."""
        turn = self.shown or Turn((Reply(Answer()),))
        self._screen.show(
            boxes={
                "image": turn.answer.image,
                "turn": turn.answer.number,
                "items": turn.items(),
                "undo": bool(turn.boxes.before),
            },
            history=[one.line() for one in self.turns[-LISTED:]],
            rival=_rival(turn),
            answer=turn.answer.to_dict(),
        )


def _rival(turn: Turn) -> dict[str, Any]:
    """The second answer and how far the two agree, for the browser; empty where one model was asked."""
    if len(turn.replies) < 2:
        return {}
    compared = turn.comparison
    return {**turn.replies[1].answer.to_dict(), "verdict": verdict(compared) if compared else ""}
