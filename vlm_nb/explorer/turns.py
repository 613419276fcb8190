"""One question and what came of it: the reply of one model, or of two that are compared. No thread here."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..comparing import ComparedRow, Comparison
from ..engines.base import Ticket
from ..errors import Cancelled
from ..likeness import match
from ..results import Outcome, Prediction
from .edits import Boxes
from .state import Answer

SHORT = 120


@dataclass(slots=True, eq=False)
class Reply:
    """What one model says. ``ticket`` is there while it is asked, ``error`` is what ended it otherwise."""

    answer: Answer
    prediction: Prediction | None = None
    ticket: Ticket | None = None
    error: BaseException | None = None
    sent: float = 0.0


@dataclass(slots=True, eq=False)
class Turn:
    """One question. ``replies`` are one, or two that are compared; ``boxes`` are all theirs, as corrected.

    ``over`` is set when nothing more will come.
    """

    replies: tuple[Reply, ...]
    boxes: Boxes = field(default_factory=Boxes)
    cancelled: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def answer(self) -> Answer:
        """The first model's answer; number, task, prompt, image and region are those of both."""
        return self.replies[0].answer

    @property
    def open(self) -> bool:
        """Whether anything is still to come."""
        return any(reply.answer.open for reply in self.replies)

    def result(self, side: int = 0) -> Prediction | None:
        """A reply's prediction with its boxes as they are now; None where there was no answer."""
        prediction = self.replies[side].prediction
        if prediction is None:
            return None
        phrases = tuple(box.to_phrase() for box in self.boxes.now if box.side == side)
        return replace(prediction, grounded_phrases=phrases)

    def wait(self) -> Prediction:
        """Wait for the first model's answer; raise the error that ended it instead."""
        self.over.wait()
        if self.replies[0].error is not None:
            raise self.replies[0].error
        prediction = self.result()
        if prediction is None:
            raise Cancelled("stopped before the model was asked.")
        return prediction

    @property
    def results(self) -> tuple[Prediction, ...]:
        """The predictions that there are."""
        found = (self.result(side) for side in range(len(self.replies)))
        return tuple(prediction for prediction in found if prediction is not None)

    @property
    def comparison(self) -> Comparison | None:
        """How far two answers agree, counted on the boxes as they are now; None without two answers."""
        if len(self.results) < 2:
            return None
        left, right = self.results
        row = ComparedRow(left.source, Outcome(left, None), Outcome(right, None))
        names = (self.replies[0].answer.model, self.replies[1].answer.model)
        return Comparison(names, self.answer.prompt or left.prompt, (row,))

    def items(self) -> list[dict[str, Any]]:
        """The boxes for the browser; in a comparison with the id of the same box of the other model."""
        partners = self._partners() if self.comparison else {}
        return [{**box.to_dict(), **partners.get(box.id, {})} for box in self.boxes.now]

    def _partners(self) -> dict[int, dict[str, Any]]:
        left, right = ([box for box in self.boxes.now if box.side == side] for side in (0, 1))
        found: dict[int, dict[str, Any]] = {}
        for pair in match([box.to_phrase() for box in left], [box.to_phrase() for box in right]):
            if pair.left is not None and pair.right is not None:
                one, other = left[pair.left].id, right[pair.right].id
                found[one] = {"match": other, "iou": pair.iou}
                found[other] = {"match": one, "iou": pair.iou}
        return found

    def line(self) -> dict[str, Any]:
        """One row of the history."""
        answer, compared = self.answer, self.comparison
        return {
            "number": answer.number,
            "task": answer.task,
            "prompt": answer.prompt[:SHORT],
            "label": answer.label,
            "image": answer.image,
            "status": answer.status,
            "text": answer.text[:SHORT],
            "boxes": len(self.boxes.now),
            "models": [reply.answer.model for reply in self.replies],
            "verdict": verdict(compared) if compared else "",
        }


def verdict(comparison: Comparison) -> str:
    """How far the two answers of a turn agree, in words; no score against the truth."""
    row = comparison.rows[0]
    if row.box_iou is not None:
        return f"Mean box IoU {row.box_iou:.2f}"
    if row.same_text:
        return "The answers are the same"
    return "" if row.agreement is None else f"Agreement {row.agreement:.2f} of 1"


def together(comparison: Comparison) -> Prediction:
    """Both answers' boxes over one image, named "A …" and "B …": a picture, its texts are in the table."""
    row = comparison.rows[0]
    left, right = row.left.unwrap(), row.right.unwrap()
    phrases = (*_lettered("A", left), *_lettered("B", right))
    return Prediction(
        f"A: {comparison.names[0]}, B: {comparison.names[1]}. {verdict(comparison)}.",
        grounded_phrases=phrases,
        prompt=comparison.prompt,
        source=left.source,
        image_size=left.image_size,
        preview=left.preview,
        notes=tuple(dict.fromkeys((*left.notes, *right.notes))),
    )


def _lettered(letter: str, prediction: Prediction) -> Sequence[Any]:
    return [replace(p, phrase=f"{letter} {p.phrase}") for p in prediction.grounded_phrases]
