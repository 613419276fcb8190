"""What a grounding format is: a coordinate space, the syntaxes that it is read with, and a writer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..results import BBox, Frame, GroundedPhrase

MAX_BOXES = 2_000
"""More than this from one answer is a runaway: the rest is cut and the notes say so."""
MAX_PHRASE = 500
"""Characters kept of a phrase."""
Span = tuple[int, int]
"""Start and end, in characters of a text."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place as the text gives it: four numbers (a box) or two (a point), in the text's order and unit.

    ``named`` numbers came with names (``x_min``, …), so they stand in x, y order whatever the format's is.
    ``span`` is where the numbers stand in the text that was read: (start, end), None where that is not known.
    """

    phrase: str
    values: tuple[float, ...]
    image_index: int = 0
    confidence: float | None = None
    named: bool = False
    span: Span | None = None


@dataclass(slots=True)
class Reading:
    """What a syntax found in a text.

    ``cuts`` are (start, end, replacement) of the markup; ``markup`` says that there was some, readable or
    not; ``empty`` that it says "nothing"; ``refused`` counts places that could not be read.
    """

    marks: list[Mark] = field(default_factory=list)
    cuts: list[tuple[int, int, str]] = field(default_factory=list)
    markup: bool = False
    empty: bool = False
    refused: int = 0
    truncated: bool = False

    def add(self, mark: Mark) -> None:
        """Keep a mark, up to one more than the cap (so that the cut shows)."""
        self.markup = True
        if len(self.marks) <= MAX_BOXES:
            self.marks.append(mark)

    def refuse(self) -> None:
        """Count a place that was marked up but cannot be read."""
        self.markup = True
        self.refused += 1

    @property
    def useful(self) -> bool:
        """Whether the syntax recognised anything."""
        return self.markup or self.empty or bool(self.cuts)


Syntax = Callable[[str, bool], Reading]
"""Reads a text; the flag says that grounding was asked for, so that bare numbers count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The unit of a format's numbers, on the image that the model saw.

    ``scale`` is the number that stands for the full side (1000, 1, 100, …), None for pixels. ``top`` is the
    highest number that the format writes. ``y_first`` marks y, x order. ``bin`` is added to a number before
    scaling (0.5 for the centre of a bin). ``step`` is what the writer rounds to (0: not at all).
    """

    scale: float | None
    top: float | None = None
    y_first: bool = False
    bin: float = 0.0
    step: float = 1.0

    def to_seen(self, mark: Mark, frame: Frame) -> BBox | None:
        """Map a mark's numbers to a box in pixels of ``frame.seen``; None if they are absurd.

        Absurd is: not finite, more than ten sides away, or a box with no part of the image in it.
        """
        x0, y0, x1, y1 = self._as_xyxy(mark)
        wide, high = frame.seen
        units_x, units_y = self.scale or wide, self.scale or high
        limit = 10.0 * max(units_x, units_y)
        if not all(math.isfinite(v) and abs(v) <= limit for v in mark.values):
            return None
        xs = [(x + self.bin) * wide / units_x for x in (x0, x1)]
        ys = [(y + self.bin) * high / units_y for y in (y0, y1)]
        outside = max(xs) < 0 or min(xs) > wide or max(ys) < 0 or min(ys) > high
        return None if outside else (xs[0], ys[0], xs[1], ys[1])

    def from_seen(self, box: BBox, frame: Frame) -> tuple[float, float, float, float]:
        """Map a box in pixels of ``frame.seen`` to the numbers that the text holds (in the text's order)."""
        wide, high = frame.seen
        units_x, units_y = self.scale or wide, self.scale or high
        x0, x1 = (self._rounded(x * units_x / wide, units_x) for x in (box[0], box[2]))
        y0, y1 = (self._rounded(y * units_y / high, units_y) for y in (box[1], box[3]))
        return (y0, x0, y1, x1) if self.y_first else (x0, y0, x1, y1)

    def _rounded(self, value: float, units: float) -> float:
        top = units if self.top is None else self.top
        if self.bin:
            value = math.floor(value)
        stepped = round(round(value / self.step) * self.step, 6) if self.step else value
        return min(top, max(0.0, stepped))

    def _as_xyxy(self, mark: Mark) -> tuple[float, float, float, float]:
        a, b, c, d = mark.values if len(mark.values) == 4 else (*mark.values, *mark.values)
        return (b, a, d, c) if self.y_first and not mark.named else (a, b, c, d)


Writer = Callable[[Sequence[Mark]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One output format. ``syntaxes`` are tried in order until one recognises something.

    ``empty_is_none``: an empty answer means "there is nothing". ``specials`` are tokens to drop before
    reading, where a family decodes with special tokens kept. ``sign`` matches text that only this format
    shows (used to guess). ``source`` says where the format is published.
    """

    name: str
    space: Space
    syntaxes: tuple[Syntax, ...]
    writer: Writer
    source: str
    points: bool = False
    empty_is_none: bool = False
    specials: tuple[str, ...] = ()
    sign: re.Pattern[str] | None = None

    def read(self, text: str, asked: bool) -> Reading:
        """Return what the first syntax that recognises anything found (an empty reading if none does)."""
        best = Reading()
        for syntax in self.syntaxes:
            reading = syntax(text, asked)
            if reading.marks:
                return reading
            if reading.useful and not best.useful:
                best = reading
        return best


def to_mark(phrase: GroundedPhrase, space: Space, frame: Frame, *, points: bool) -> Mark:
    """Return ``phrase`` as a format writes it: numbers of ``space`` on the image that the model sees."""
    if points:
        x, y = phrase.point or ((phrase.bbox[0] + phrase.bbox[2]) / 2, (phrase.bbox[1] + phrase.bbox[3]) / 2)
        values = space.from_seen(frame.to_seen((x, y, x, y)), frame)[:2]
        return Mark(phrase.phrase, values, phrase.image_index)
    return Mark(phrase.phrase, space.from_seen(frame.to_seen(phrase.bbox), frame), phrase.image_index)


def to_phrase(mark: Mark, space: Space, frame: Frame) -> GroundedPhrase | None:
    """Return ``mark`` in 0..1 of the original image, None if its numbers are absurd."""
    seen = space.to_seen(mark, frame)
    if seen is None:
        return None
    box = frame.to_original(seen)
    point = (box[0], box[1]) if len(mark.values) == 2 else None
    phrase = " ".join(mark.phrase[:MAX_PHRASE].split())
    return GroundedPhrase(phrase, box, point=point, image_index=mark.image_index, confidence=mark.confidence)
