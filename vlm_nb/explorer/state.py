"""What the widget shows, as frozen values and pure steps between them. No thread, no trait, no image here."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..errors import VLMError
from ..results import BBox, Prediction

Status = Literal["idle", "waiting", "running", "done", "stopped", "error"]
OPEN: tuple[Status, ...] = ("waiting", "running")
TASKS: Mapping[str, str] = {"ask": "ask", "caption": "caption", "ground": "locate"}
"""The widget's tasks → the model's; "ground" without a phrase finds every object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error as the widget shows it: one line with cause and fix, details to unfold."""

    message: str
    detail: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Problem:
        """Read ``error``; what is not ours is named with its type."""
        ours = isinstance(error, VLMError)
        message = str(error) if ours else f"{type(error).__name__}: {error}"
        detail = "" if ours and error.__cause__ is None and error.__traceback__ is None else _trace(error)
        return cls(message=message or type(error).__name__, detail=detail)


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-8000:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer pane. ``image`` is the index that the question was about, ``text`` what is shown.

    ``region`` is (x_min, y_min, x_max, y_max) in 0..1 of the upright original, or None for all of it.
    ``phrase`` is what a "ground" task looked for ("" means every object).
    """

    number: int = 0
    status: Status = "idle"
    task: str = "ask"
    prompt: str = ""
    image: int | None = None
    label: str = ""
    region: BBox | None = None
    model: str = ""
    text: str = ""
    grounding: str | None = None
    notes: tuple[str, ...] = ()
    problem: Problem | None = None
    seconds: float | None = None
    tokens: int | None = None

    @property
    def open(self) -> bool:
        """Whether the answer is still to come or growing."""
        return self.status in OPEN

    def running(self, model: str) -> Answer:
        """The request went out to ``model``."""
        return replace(self, status="running", model=model) if self.open else self

    def grown(self, text: str) -> Answer:
        """More text has arrived; an answer that has ended stays as it is."""
        return replace(self, status="running", text=text) if self.open else self

    def finished(self, prediction: Prediction) -> Answer:
        """The answer is complete, or was stopped with what there is."""
        stopped = prediction.usage.finish_reason == "cancelled"
        return replace(
            self,
            status="stopped" if stopped else "done",
            text=prediction.caption if prediction.caption.strip() or not stopped else prediction.raw,
            model=self.model or prediction.model,
            grounding=prediction.grounding,
            notes=prediction.notes,
            seconds=prediction.usage.seconds,
            tokens=prediction.usage.new_tokens,
        )

    def stopped(self) -> Answer:
        """Stopped before anything was asked."""
        return replace(self, status="stopped", notes=("stopped before the end",))

    def failed(self, error: BaseException) -> Answer:
        """The answer ended in an error; the text so far stays."""
        return replace(self, status="error", problem=Problem.of(error))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the browser."""
        return _plain(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """The load bar. ``done`` and ``total`` are bytes (total None while unknown)."""

    status: Literal["idle", "loading", "unloading", "error"] = "idle"
    name: str = ""
    text: str = ""
    done: float = 0.0
    total: float | None = None
    note: str = ""
    problem: Problem | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the browser."""
        return asdict(self)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
