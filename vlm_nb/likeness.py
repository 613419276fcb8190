"""How alike two answers are: their boxes, matched one to one, or their words. Pure functions, no truth."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple

from .results import BBox, GroundedPhrase, Prediction

_WORDS = 2_000


class Pair(NamedTuple):
    """Places of a left and a right phrase that mean the same box, or of one alone (the other None)."""

    left: int | None
    right: int | None
    iou: float


def iou(one: BBox, other: BBox) -> float:
    """Intersection over union of two (x_min, y_min, x_max, y_max) boxes in one unit, in 0..1.

    Boxes without area (points) give 1 where they are equal and 0 elsewhere.
    """
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    common = max(0.0, wide) * max(0.0, high)
    union = _area(one) + _area(other) - common
    return common / union if union > 0 else float(one == other)


def _area(box: BBox) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def match(left: Sequence[GroundedPhrase], right: Sequence[GroundedPhrase]) -> list[Pair]:
    """Pair the boxes of two answers greedily, the highest IoU first; the rest stay alone with IoU 0.

    Only boxes of the same phrase (upper and lower case alike) in the same image can meet, and each once.
    """
    places: dict[tuple[str, int], list[int]] = {}
    for place, phrase in enumerate(right):
        places.setdefault(_name(phrase), []).append(place)
    near = [
        Pair(place, other, iou(phrase.bbox, right[other].bbox))
        for place, phrase in enumerate(left)
        for other in places.get(_name(phrase), ())
    ]
    free_left, free_right, found = set(range(len(left))), set(range(len(right))), []
    for pair in sorted(near, key=lambda pair: -pair.iou):
        if pair.iou > 0 and pair.left in free_left and pair.right in free_right:
            found.append(pair)
            free_left.discard(pair.left)
            free_right.discard(pair.right)
    alone = [Pair(place, None, 0.0) for place in sorted(free_left)]
    return found + alone + [Pair(None, place, 0.0) for place in sorted(free_right)]


def _name(phrase: GroundedPhrase) -> tuple[str, int]:
    return " ".join(phrase.phrase.casefold().split()), phrase.image_index


def box_iou(left: Sequence[GroundedPhrase], right: Sequence[GroundedPhrase]) -> float | None:
    """Mean IoU over ``match``, 0..1, a box without a partner counting 0; None where neither has boxes."""
    pairs = match(left, right)
    return sum(pair.iou for pair in pairs) / len(pairs) if pairs else None


def text_likeness(left: str, right: str) -> float:
    """How alike two texts are, word for word and case aside: 1 the same, 0 no word in common."""
    one, other = left.casefold().split()[:_WORDS], right.casefold().split()[:_WORDS]
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


def agreement(left: Prediction, right: Prediction) -> float:
    """One number in 0..1 for two answers: the box IoU where there are boxes, else the texts' likeness.

    0 where only one could be read, or only one found nothing.
    """
    if left.grounding != right.grounding:
        return 0.0
    boxes = box_iou(left.grounded_phrases, right.grounded_phrases)
    return text_likeness(left.caption, right.caption) if boxes is None else boxes
