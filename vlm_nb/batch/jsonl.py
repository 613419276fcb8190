"""``run_jsonl``: conversations in, one a line; the same lines with their answers out, as they finish."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..asking import Job
from ..errors import OptionError, PromptError, SourceNotFound, VLMError
from ..results import Outcome

_SETTINGS = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
}
"""OpenAI's names of generation settings → ours."""

MakeJob = Callable[[Mapping[str, Any], Mapping[str, Any]], Job | VLMError]
"""(conversation, generation settings of its line) → the job."""


class Conversations:
    """The rows of a JSONL file, read lazily. A line that cannot be used is that row's error.

    Forms of a line: ``{"messages": [...]}`` as OpenAI or Oumi writes it, or a line of an OpenAI batch file,
    ``{"custom_id": ..., "body": {"messages": [...], "max_tokens": ...}}``.
    """

    def __init__(self, path: Path, make: MakeJob) -> None:
        if not path.is_file():
            raise SourceNotFound(f"no such file: {path}", source=str(path))
        self._path = path
        self._make = make
        self._open: dict[int, dict[str, Any]] = {}

    def __iter__(self) -> Iterator[Job | VLMError]:
        position = 0
        with self._path.open("rb") as stream:
            for number, raw in enumerate(stream, 1):
                if raw.strip():
                    yield self._row(position, number, raw)
                    position += 1

    def _row(self, position: int, number: int, raw: bytes) -> Job | VLMError:
        try:
            given = json.loads(raw)
            if not isinstance(given, dict):
                raise ValueError("not an object")
        except ValueError as error:
            self._open[position] = {"line": number}
            return PromptError(f"line {number} of {self._path.name} is no JSON object ({error}).")
        self._open[position] = given
        body = given["body"] if isinstance(given.get("body"), dict) else given
        settings = {ours: body[theirs] for theirs, ours in _SETTINGS.items() if body.get(theirs) is not None}
        try:
            return self._make(body, settings)
        except (OptionError, PromptError) as error:
            return error

    def line(self, position: int, outcome: Outcome) -> dict[str, Any]:
        """The output line: the input's fields, its messages with the answer added, and the answer in full."""
        given = self._open.pop(position, {})
        body = given.get("body") if isinstance(given.get("body"), dict) else given
        result, error = outcome
        line = {key: value for key, value in given.items() if key not in ("body", "method", "url")}
        line |= {
            "index": position,
            "answer": None,
            "error": f"{type(error).__name__}: {error}" if error else None,
        }
        if result is not None:
            said = {"role": "assistant", "content": result.raw}
            line |= {"answer": result.to_dict(), "messages": [*(body or {}).get("messages", []), said]}
        return line


def check_apart(source: Path, target: Path) -> None:
    """Raise OptionError where the output would be written into the input."""
    if target.exists() and source.exists() and target.samefile(source):
        raise OptionError(f"output={str(target)!r} is the input file itself; give another name.")
