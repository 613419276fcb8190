"""Location tokens: PaliGemma ``<loc0046>``, Florence-2 ``<loc_300>``, Kosmos-2 ``<patch_index_0044>``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from .base import Mark, Reading

_PALI = re.compile(r"((?:<loc[0-9]{4}>[ \t]?)+)(?:<seg[0-9]{3}>)*([^;<\n]*)")
_PALI_CUT = re.compile(r"<(?:l|lo|loc[0-9]{0,4}|s|se|seg[0-9]{0,3})\Z")
_FLORENCE = re.compile(r"(?:<loc_[0-9]{1,4}>)+")
_FLORENCE_CUT = re.compile(r"<(?:l|lo|loc|loc_[0-9]{0,4})\Z")
_LOC = re.compile(r"<loc_?([0-9]{1,4})>")
_KOSMOS = re.compile(
    r"(?P<phrase><phrase>)|(?P<phrase_end></phrase>)|(?P<object><object>)|(?P<object_end></object>)"
    r"|<patch_index_(?P<patch>[0-9]{4})>|(?P<other></?grounding>|</delimiter_of_multi_objects/>|</?image>)"
)
_KOSMOS_CUT = re.compile(r"<[a-z_/]{0,26}[0-9]{0,4}\Z")
GRID = 32
"""Kosmos-2 divides each side of the image into this many cells."""


def read_paligemma(text: str, asked: bool) -> Reading:
    """Read runs of four location tokens, each followed by its phrase, up to the next ``;``."""
    reading = Reading()
    for match in _PALI.finditer(text):
        found = list(_LOC.finditer(text, match.start(1), match.end(1)))
        whole = len(found) % 4 == 0
        phrase = match.group(2).strip()
        for i in range(0, len(found), 4) if whole else ():
            reading.add(_box(phrase, found[i : i + 4]))
        if not whole:
            _refuse_run(reading, match.end() == len(text))
        reading.cuts.append((match.start(), match.start(2), ""))
    return _drop_cut_token(text, reading, _PALI_CUT)


def read_florence(text: str, asked: bool) -> Reading:
    """Read runs of location tokens in fours, or of one quadrilateral; the phrase stands before them."""
    reading = Reading()
    done = 0
    for match in _FLORENCE.finditer(text):
        found = list(_LOC.finditer(text, *match.span()))
        phrase = text[max(done, match.start() - 500) : match.start()].strip(" ,;.\n")
        if _is_quadrilateral([float(m.group(1)) for m in found]):
            reading.add(_extent(phrase, found))
            found = []
        for i in range(0, len(found) - 3, 4):
            reading.add(_box(phrase, found[i : i + 4]))
        if len(found) % 4:
            _refuse_run(reading, match.end() == len(text))
        done = match.end()
        joint = ", " if text[done : done + 1].isalnum() else ""
        reading.cuts.append((match.start(), done, joint))
    return _drop_cut_token(text, reading, _FLORENCE_CUT)


def _is_quadrilateral(values: Sequence[float]) -> bool:
    """Tell the four corners of a text region (answers to OCR_WITH_REGION) from two boxes.

    Opposite sides of a region run in opposite directions, so read as two boxes, one would lie backwards;
    Florence-2 writes the corners of a box in order.
    """
    halves = (values[:4], values[4:])
    return len(values) == 8 and any(x1 < x0 or y1 < y0 for x0, y0, x1, y1 in halves)


def _extent(phrase: str, corners: Sequence[re.Match[str]]) -> Mark:
    """The box around a quadrilateral."""
    values = [float(match.group(1)) for match in corners]
    xs, ys = values[0::2], values[1::2]
    span = corners[0].start(), corners[-1].end()
    return Mark(phrase, (min(xs), min(ys), max(xs), max(ys)), span=span)


def _box(phrase: str, found: Sequence[re.Match[str]]) -> Mark:
    return Mark(phrase, tuple(float(m.group(1)) for m in found), span=(found[0].start(), found[-1].end()))


def _refuse_run(reading: Reading, at_end: bool) -> None:
    """A run that is no multiple of four: cut off if it ends the text, unreadable otherwise."""
    reading.markup = True
    reading.truncated |= at_end
    reading.refused += not at_end


def _drop_cut_token(text: str, reading: Reading, cut: re.Pattern[str]) -> Reading:
    tail = cut.search(text, max(0, len(text) - 40)) if reading.markup else None
    if tail:
        reading.truncated = True
        reading.cuts.append((tail.start(), len(text), ""))
    return reading


def read_kosmos(text: str, asked: bool) -> Reading:
    """Read ``<phrase> a fire</phrase><object>…</object>``: pairs of grid cells, in cells of the image."""
    reading = Reading()
    phrase, phrase_start = "", -1
    cells: list[re.Match[str]] = []
    for match in _KOSMOS.finditer(text):
        kind = match.lastgroup
        reading.cuts.append((match.start(), match.end(), ""))
        if kind == "phrase":
            phrase_start = match.end()
        elif kind == "phrase_end" and phrase_start >= 0:
            phrase, phrase_start = text[phrase_start : match.start()][:500].strip(), -1
        elif kind == "object":
            reading.markup, cells = True, []
        elif kind == "patch":
            cells = _add_cells(reading, phrase, [*cells, match])
        elif cells:
            reading.refuse()
            cells = []
    reading.truncated |= bool(cells)
    return _drop_cut_token(text, reading, _KOSMOS_CUT)


def _add_cells(reading: Reading, phrase: str, found: list[re.Match[str]]) -> list[re.Match[str]]:
    reading.markup = True
    if len(found) < 2:
        return found
    first, last = (int(match.group("patch")) for match in found)
    if max(first, last) < GRID * GRID:
        span = found[0].start(), found[1].end()
        reading.add(Mark(phrase, cells_to_box(first, last), span=span))
    else:
        reading.refuse()
    return []


def cells_to_box(first: int, last: int) -> tuple[float, float, float, float]:
    """Return (x_min, y_min, x_max, y_max) in cells: centre to centre, or whole cells in one row or column.

    The rule of huggingface/transformers, models/kosmos2/processing_kosmos2.py.
    """
    y0, x0 = divmod(first, GRID)
    y1, x1 = divmod(last, GRID)
    if x0 == x1 or y0 == y1:
        return float(x0), float(y0), x1 + 1.0, y1 + 1.0
    return x0 + 0.5, y0 + 0.5, x1 + 0.5, y1 + 0.5


def write_paligemma(marks: Sequence[Mark]) -> str:
    """Return ``<loc0046><loc0538><loc0795><loc1022> cat ; …``."""
    return " ; ".join(f"{''.join(f'<loc{int(v):04d}>' for v in mark.values)} {mark.phrase}" for mark in marks)


def write_florence(marks: Sequence[Mark]) -> str:
    """Return ``some object<loc_300><loc_400><loc_500><loc_600>…``."""
    return "".join(f"{mark.phrase}{''.join(f'<loc_{int(v)}>' for v in mark.values)}" for mark in marks)


def write_kosmos(marks: Sequence[Mark]) -> str:
    """Return ``<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>…``."""
    parts = []
    for mark in marks:
        x0, y0, x1, y1 = mark.values
        first = _cell(math.floor(y0)) * GRID + _cell(math.floor(x0))
        last = _cell(math.ceil(y1) - 1) * GRID + _cell(math.ceil(x1) - 1)
        cells = f"<patch_index_{first:04d}><patch_index_{last:04d}>"
        parts.append(f"<phrase> {mark.phrase}</phrase><object>{cells}</object>")
    return "".join(parts)


def _cell(value: int) -> int:
    return min(GRID - 1, max(0, value))
