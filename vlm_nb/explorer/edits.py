"""The boxes of one answer and what a person does to them: add, change, rename, delete, undo. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import OptionError
from ..results import BBox, GroundedPhrase

SMALLEST = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One box: ``bbox`` is (x_min, y_min, x_max, y_max) in 0..1 of the upright original image.

    ``original`` is what the model said where a person has changed it; None for an untouched or drawn box.
    ``side`` is 0, or 1 for the second of two models that are compared.
    """

    id: int
    phrase: str
    bbox: BBox
    source: str = "model"
    confidence: float | None = None
    original: GroundedPhrase | None = None
    side: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the browser."""
        return {
            "id": self.id,
            "phrase": self.phrase,
            "bbox": list(self.bbox),
            "source": self.source,
            "confidence": self.confidence,
            "changed": self.original is not None,
            "side": self.side,
        }

    def to_phrase(self) -> GroundedPhrase:
        """The box as a result holds it."""
        return GroundedPhrase(self.phrase, self.bbox, confidence=self.confidence, source=self.source)


@dataclass(frozen=True, slots=True)
class Boxes:
    """The boxes as they are, and the earlier states that undo returns to."""

    now: tuple[Box, ...] = ()
    before: tuple[tuple[Box, ...], ...] = ()
    next_id: int = 1

    def joined(self, phrases: Sequence[GroundedPhrase], side: int = 0) -> Boxes:
        """Add a model's boxes as it gave them: no gesture, so undo never takes them away."""
        made = tuple(
            Box(id=i, phrase=p.phrase, bbox=p.bbox, source=p.source, confidence=p.confidence, side=side)
            for i, p in enumerate(phrases, self.next_id)
        )
        before = tuple(_by_side((*state, *made)) for state in self.before)
        return Boxes(_by_side((*self.now, *made)), before, self.next_id + len(made))

    def apply(self, change: dict[str, Any]) -> Boxes:
        """Apply one gesture: ``{"op": "add"|"change"|"rename"|"delete"|"undo", "id", "bbox", "phrase"}``.

        Raises OptionError for an unknown gesture or a box that is not there.
        """
        steps = {
            "add": self._add,
            "change": self._change,
            "rename": self._change,
            "delete": self._delete,
            "undo": self._undo,
        }
        if change.get("op") not in steps:
            raise OptionError(f"unknown box edit {change.get('op')!r}; allowed are: {', '.join(steps)}.")
        return steps[change["op"]](change)

    def _add(self, change: dict[str, Any]) -> Boxes:
        box = Box(
            id=self.next_id,
            phrase=_phrase(change.get("phrase"), "object"),
            bbox=clipped(change["bbox"]),
            source="human",
        )
        return Boxes(_by_side((*self.now, box)), (*self.before, self.now), self.next_id + 1)

    def _change(self, change: dict[str, Any]) -> Boxes:
        old = self._find(change.get("id"))
        first = old.original or (old.to_phrase() if old.source == "model" else None)
        moved = change.get("bbox") is not None
        new = replace(
            old,
            bbox=clipped(change["bbox"]) if moved else old.bbox,
            phrase=_phrase(change.get("phrase"), old.phrase),
            source="human",
            confidence=None if moved else old.confidence,
            original=first,
        )
        return self._with(tuple(new if box is old else box for box in self.now))

    def _delete(self, change: dict[str, Any]) -> Boxes:
        old = self._find(change.get("id"))
        return self._with(tuple(box for box in self.now if box is not old))

    def _undo(self, change: dict[str, Any]) -> Boxes:
        return replace(self, now=self.before[-1], before=self.before[:-1]) if self.before else self

    def _with(self, boxes: tuple[Box, ...]) -> Boxes:
        return replace(self, now=boxes, before=(*self.before, self.now))

    def _find(self, number: Any) -> Box:
        for box in self.now:
            if box.id == number:
                return box
        raise OptionError(f"there is no box {number!r}.")


def _by_side(boxes: Sequence[Box]) -> tuple[Box, ...]:
    return tuple(sorted(boxes, key=lambda box: box.side))


def clipped(bbox: Sequence[float]) -> BBox:
    """Order and clip (x_min, y_min, x_max, y_max) to 0..1. Raises OptionError for what is no box."""
    if len(bbox) != 4 or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in bbox):
        raise OptionError(f"expected (x_min, y_min, x_max, y_max), got {bbox!r}.")
    x0, x1 = sorted(min(1.0, max(0.0, float(v))) for v in (bbox[0], bbox[2]))
    y0, y1 = sorted(min(1.0, max(0.0, float(v))) for v in (bbox[1], bbox[3]))
    if x1 - x0 < SMALLEST or y1 - y0 < SMALLEST:
        raise OptionError("this box has no area inside the image.")
    return x0, y0, x1, y1


def to_whole(phrase: GroundedPhrase, region: BBox) -> GroundedPhrase:
    """Map a phrase found in the crop ``region`` (0..1 of the whole image) to the whole image."""
    x0, y0, x1, y1 = region
    w, h = x1 - x0, y1 - y0
    a, b, c, d = phrase.bbox
    point = phrase.point and (x0 + phrase.point[0] * w, y0 + phrase.point[1] * h)
    return replace(phrase, bbox=(x0 + a * w, y0 + b * h, x0 + c * w, y0 + d * h), point=point)


def _phrase(given: Any, otherwise: str) -> str:
    text = " ".join(str(given).split())[:200] if given is not None else ""
    return text or otherwise
