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
        values = _locations(match.group(1))
        whole = len(values) % 4 == 0
        phrase = match.group(2).strip()
        for i in range(0, len(values) - 3, 4) if whole else ():
            reading.add(Mark(phrase, tuple(values[i : i + 4])))
        if not whole:
            _refuse_run(reading, match.end() == len(text))
        reading.cuts.append((match.start(), match.start(2), ""))
    return _drop_cut_token(text, reading, _PALI_CUT)


def read_florence(text: str, asked: bool) -> Reading:
    """Read runs of location tokens in fours; the phrase stands before them."""
    reading = Reading()
    done = 0
    for match in _FLORENCE.finditer(text):
        values = _locations(match.group())
        phrase = text[max(done, match.start() - 500) : match.start()].strip(" ,;.\n")
        for i in range(0, len(values) - 3, 4):
            reading.add(Mark(phrase, tuple(values[i : i + 4])))
        if len(values) % 4:
            _refuse_run(reading, match.end() == len(text))
        done = match.end()
        joint = ", " if text[done : done + 1].isalnum() else ""
        reading.cuts.append((match.start(), done, joint))
    return _drop_cut_token(text, reading, _FLORENCE_CUT)


def _locations(run: str) -> list[float]:
    return [float(value) for value in _LOC.findall(run)]


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
    cells: list[int] = []
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
            cells = _add_cells(reading, phrase, [*cells, int(match.group("patch"))])
        elif cells:
            reading.refuse()
            cells = []
    reading.truncated |= bool(cells)
    return _drop_cut_token(text, reading, _KOSMOS_CUT)


def _add_cells(reading: Reading, phrase: str, cells: list[int]) -> list[int]:
    reading.markup = True
    if len(cells) < 2:
        return cells
    if max(cells) < GRID * GRID:
        reading.add(Mark(phrase, cells_to_box(*cells)))
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
