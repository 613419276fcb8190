"""Where boxes and their labels go: pure functions, the same rules for figures, rasters and the widget.

One colour a phrase (Okabe–Ito); from the 8th phrase dashes and numbers. A label goes above-left of its box,
else inside, below or right of it, else it becomes a number with the list as its legend. Boxes under 40 screen
pixels in height take no label inside. More than 12 boxes: numbers only. The largest box is drawn first. No
label leaves the image or crosses another; one that fits nowhere is left out (the list still has it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .glyphs import brief

if TYPE_CHECKING:
    from ..results import GroundedPhrase

Rect = tuple[float, float, float, float]
"""(x_min, y_min, x_max, y_max) in pixels of the drawing."""
Measure = Callable[[str], tuple[float, float]]
"""Width and height in pixels of a label, its padding included."""

COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
CASING = "#1A1A1A"
MAX_LABELLED = 12
LABEL_CHARACTERS = 24
SHORT_BOX = 40.0
POINT_RADIUS = 6.0
STROKE = 2.0


@dataclass(frozen=True, slots=True)
class Style:
    """How all boxes of one phrase look; ``order`` counts the phrases from 0."""

    order: int
    colour: str
    ink: str
    dashed: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """One box or point as it is drawn.

    ``number`` is its place in the list, from 1. ``rect`` is in pixels of the drawing, clipped to it;
    ``point`` likewise where a point is marked instead of a box. ``label`` is "" where none fits, and
    ``label_rect`` is then None.
    """

    number: int
    phrase: str
    style: Style
    rect: Rect
    point: tuple[float, float] | None
    label: str
    label_rect: Rect | None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Marks in drawing order (largest first), and whether a reader needs the list to read the numbers."""

    marks: tuple[Mark, ...]
    numbered: bool


def phrase_styles(phrases: Sequence[GroundedPhrase]) -> dict[str, Style]:
    """Return the style of each distinct phrase, in order of first appearance."""
    styles: dict[str, Style] = {}
    for phrase in phrases:
        if phrase.phrase not in styles:
            order = len(styles)
            colour = COLOURS[order % len(COLOURS)]
            ink = "#FFFFFF" if colour == "#0072B2" else "#000000"
            styles[phrase.phrase] = Style(order, colour, ink, order >= len(COLOURS))
    return styles


def lay_out(
    phrases: Sequence[GroundedPhrase],
    size: tuple[int, int],
    measure: Measure,
    *,
    scale: float = 1.0,
    image_index: int = 0,
    drawable: Callable[[str], bool] = lambda text: True,
) -> Layout:
    """Place boxes and labels on a drawing of ``size`` (width, height in pixels).

    ``phrases`` have boxes in 0..1 of the upright original of the drawn image; those of other images than
    ``image_index`` are left out, but count in the numbering. ``scale`` is drawing pixels per screen pixel.
    ``drawable`` says whether a font has all of a text's glyphs; where not, the number stands for it.
    """
    styles = phrase_styles(phrases)
    shown = [(n, p) for n, p in enumerate(phrases, 1) if p.image_index == image_index]
    bare = [_mark(number, phrase, styles[phrase.phrase], size, scale) for number, phrase in shown]
    bare.sort(key=lambda mark: -_area(mark.rect))
    numbers_only = len(bare) > MAX_LABELLED
    taken: list[Rect] = []
    marks = []
    for mark in bare:
        text = "" if numbers_only or not drawable(label_text(mark)) else label_text(mark)
        marks.append(_placed(mark, text, size, measure, scale, taken))
    numbered = any(mark.label != label_text(mark) or mark.style.dashed for mark in marks)
    return Layout(tuple(marks), numbered)


def label_text(mark: Mark) -> str:
    """The label where there is room: the phrase on one line, cut at 24 characters, numbered from the 8th."""
    text = brief(mark.phrase, LABEL_CHARACTERS)
    return f"{mark.number} {text}" if mark.style.dashed else text or str(mark.number)


def _mark(number: int, phrase: GroundedPhrase, style: Style, size: tuple[int, int], scale: float) -> Mark:
    width, height = size
    x0, y0, x1, y1 = phrase.bbox
    point = phrase.point or ((x0, y0) if (x0, y0) == (x1, y1) else None)
    if point is None:
        rect = _box((x0 * width, y0 * height, x1 * width, y1 * height), size, scale)
        return Mark(number, phrase.phrase, style, rect, None, "", None, phrase.confidence)
    x, y = point[0] * width, point[1] * height
    radius = POINT_RADIUS * scale
    around = (max(0.0, x - radius), max(0.0, y - radius), min(width, x + radius), min(height, y + radius))
    return Mark(number, phrase.phrase, style, around, (x, y), "", None, phrase.confidence)


def _box(rect: Rect, size: tuple[int, int], scale: float) -> Rect:
    """Clip to the drawing, and keep a box of no width visible."""
    least = STROKE * scale
    x0, x1 = _at_least(max(0.0, rect[0]), min(float(size[0]), rect[2]), least, size[0])
    y0, y1 = _at_least(max(0.0, rect[1]), min(float(size[1]), rect[3]), least, size[1])
    return x0, y0, x1, y1


def _at_least(low: float, high: float, least: float, limit: float) -> tuple[float, float]:
    if high - low >= least:
        return low, high
    middle = (low + high) / 2
    low = min(max(0.0, middle - least / 2), max(0.0, limit - least))
    return low, min(limit, low + least)


def _placed(
    mark: Mark, text: str, size: tuple[int, int], measure: Measure, scale: float, taken: list[Rect]
) -> Mark:
    """Return the mark with the first label and place that fits; the place is added to ``taken``."""
    for label, spots in ((text, _label_spots), (str(mark.number), _badge_spots)):
        if not label:
            continue
        for spot in spots(mark.rect, measure(label), size, scale):
            if _inside(spot, size) and not any(_cross(spot, other) for other in taken):
                taken.append(spot)
                return replace(mark, label=label, label_rect=spot)
    return mark


def _label_spots(
    rect: Rect, label: tuple[float, float], size: tuple[int, int], scale: float
) -> Iterator[Rect]:
    x0, y0, x1, y1 = rect
    w, h = label
    left = max(0.0, min(x0, size[0] - w))
    yield _at(left, y0 - h, label)
    if y1 - y0 >= SHORT_BOX * scale and y1 - y0 >= h:
        yield _at(left, y0, label)
    yield _at(left, y1, label)
    beside = max(0.0, min(y0, size[1] - h))
    yield _at(x1, beside, label)
    yield _at(x0 - w, beside, label)


def _badge_spots(
    rect: Rect, badge: tuple[float, float], size: tuple[int, int], scale: float
) -> Iterator[Rect]:
    """As for labels, then the corners inside, then a grid over the box: a number stays with its box."""
    x0, y0, x1, y1 = rect
    w, h = badge
    yield from _label_spots(rect, badge, size, scale)
    for x in (x0, x1 - w, x1, x0 - w):
        for y in (y0, y1 - h, y0 - h, y1):
            yield _at(x, y, badge)
    columns, rows = (max(1, min(12, int(span))) for span in ((x1 - x0) / w, (y1 - y0) / h))
    for row in range(rows):
        for column in range(columns):
            yield _at(x0 + column * w, y0 + row * h, badge)


def _at(x: float, y: float, size: tuple[float, float]) -> Rect:
    return x, y, x + size[0], y + size[1]


def _inside(rect: Rect, size: tuple[int, int]) -> bool:
    return rect[0] >= 0 and rect[1] >= 0 and rect[2] <= size[0] and rect[3] <= size[1]


def _cross(a: Rect, b: Rect) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _area(rect: Rect) -> float:
    return (rect[2] - rect[0]) * (rect[3] - rect[1])
