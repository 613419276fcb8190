"""Points in XML: Molmo's ``<points x1="32.0" y1="62.8" …>``, Molmo2's ``<points coords="1 1 073 160 …">``.

Qwen2.5-VL points in Molmo's form too, in pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .base import Mark, Reading, Span
from .writing import plain_number

MAX_TAGS = 50_000
_OPEN = re.compile(r"<(?:points?|tracks?)\b([^<>]*)(>|\Z|(?=<))")
_CLOSE = re.compile(r"</(?:points?|tracks?)>")
_COORD = re.compile(
    r"""\b([xy])([0-9]{0,6})\s{0,4}=\s{0,4}["']?\s{0,4}(-?[0-9]{1,9}(?:\.[0-9]{0,9})?)\s{0,4}["'\s/]"""
)
_COORDS = re.compile(r"""coords\s{0,4}=\s{0,4}["']([^"']*)(["']|\Z)""")
_ALT = re.compile(r"""\balt\s{0,4}=\s{0,4}(?:"([^"]*)"|'([^']*)')""")
_GROUP = re.compile(r"[^\t;:,\n]+")
_WORD = re.compile(r"\S+")
Place = tuple[int, float, float, Span]
"""Image index, x, y, and where x and y stand."""


def read_points(text: str, asked: bool) -> Reading:
    """Read every point tag; the phrase is the tag's text, else its ``alt``."""
    reading = Reading()
    for count, tag in enumerate(_OPEN.finditer(text)):
        if count >= MAX_TAGS:
            break
        _read_tag(text, tag, reading)
    for count, tag in enumerate(_CLOSE.finditer(text) if reading.markup else ()):
        if count >= MAX_TAGS:
            break
        reading.cuts.append((tag.start(), tag.end(), ""))
    return reading


def _read_tag(text: str, tag: re.Match[str], reading: Reading) -> None:
    attributes, whole = tag.group(1), tag.group(2) == ">"
    if not attributes.strip() and whole:
        return  # <point> is another format's tag
    reading.markup = True
    reading.truncated |= not whole
    reading.cuts.append((tag.start(), tag.end(), ""))
    phrase = _phrase(text, tag.end(), attributes) if whole else _alt(attributes)
    coords = _COORDS.search(attributes)
    places = list(_coords_points(coords) if coords else _xy_points(attributes, whole))
    for image, x, y, (start, end) in places:
        span = tag.start(1) + start, tag.start(1) + end
        reading.add(Mark(phrase, (x, y), image, span=span))
    if not places and whole:
        reading.refuse()


def _phrase(text: str, start: int, attributes: str) -> str:
    """Return the text up to the closing tag (it may have been cut off), else ``alt``."""
    end = text.find("<", start, start + 500)
    inner = text[start:end] if end >= 0 else text[start : start + 500] if len(text) - start <= 500 else ""
    closed = end >= 0 and text.startswith("</", end)
    return inner.strip() if inner.strip() and closed else _alt(attributes) or inner.strip()


def _alt(attributes: str) -> str:
    match = _ALT.search(attributes)
    return (match.group(1) or match.group(2) or "") if match else ""


def _xy_points(attributes: str, whole: bool) -> Iterator[Place]:
    """Yield the points of ``x="…" y="…"`` or ``x1="…" y1="…" x2=…``: an x with the y of the same number."""
    waiting: dict[str, re.Match[str]] = {}
    for match in _COORD.finditer(attributes + (" " if whole else "")):
        axis, number, value = match.groups()
        if axis == "x":
            waiting[number] = match
        elif number in waiting:
            x = waiting.pop(number)
            yield 0, float(x.group(3)), float(value), (x.start(3), match.end(3))


def _coords_points(coords: re.Match[str]) -> Iterator[Place]:
    """Yield the points of a ``coords`` attribute; without its closing quote the last number may be cut."""
    listed, closed = coords.group(1), bool(coords.group(2))
    return _image_points(listed if closed else listed.rpartition(" ")[0], coords.start(1))


def _image_points(coords: str, offset: int) -> Iterator[Place]:
    """Yield the points of ``image id x y id x y``, groups for several images split by ``;`` or tab.

    Coordinates have three digits or more (allenai/molmo2, olmo/preprocessing/point_formatter.py), so a short
    token before an id starts the next image's group where the separator was lost.
    """
    for group in _GROUP.finditer(coords):
        found = list(_WORD.finditer(coords, *group.span()))
        tokens = [match.group() for match in found]
        image, at = tokens[0] if tokens else "1", 1
        while at + 2 < len(tokens):
            if len(tokens[at + 1]) < 3 and at + 3 < len(tokens) and len(tokens[at + 2]) >= 3:
                image, at = tokens[at], at + 1
            if _digits(image, 1) and _digits(tokens[at + 1], 3) and _digits(tokens[at + 2], 3):
                span = offset + found[at + 1].start(), offset + found[at + 2].end()
                yield int(image) - 1, float(tokens[at + 1]), float(tokens[at + 2]), span
            at += 3


def _digits(token: str, least: int) -> bool:
    return least <= len(token) <= 9 and token.isascii() and token.isdigit()


def write_molmo(marks: Sequence[Mark]) -> str:
    """Return one tag a phrase: ``<points x1="32.0" y1="62.8" … alt="speakers">speakers</points>``."""
    return " ".join(_molmo_tag(phrase, group) for phrase, group in _by_phrase(marks).items())


def _molmo_tag(phrase: str, marks: Sequence[Mark]) -> str:
    if len(marks) == 1:
        x, y = (f"{value:.1f}" for value in marks[0].values)
        return f'<point x="{x}" y="{y}" alt="{_quoted(phrase)}">{_escaped(phrase)}</point>'
    spots = " ".join(f'x{i}="{m.values[0]:.1f}" y{i}="{m.values[1]:.1f}"' for i, m in enumerate(marks, 1))
    return f'<points {spots} alt="{_quoted(phrase)}">{_escaped(phrase)}</points>'


def write_molmo2(marks: Sequence[Mark]) -> str:
    """Return one tag a phrase: ``<points coords="1 1 073 160 2 173 600" alt="boats">boats</points>``."""
    parts = []
    for phrase, group in _by_phrase(marks).items():
        images = sorted({mark.image_index for mark in group})
        coords = ";".join(_molmo2_group(image, group) for image in images)
        parts.append(f'<points coords="{coords}" alt="{_quoted(phrase)}">{_escaped(phrase)}</points>')
    return " ".join(parts)


def _molmo2_group(image: int, marks: Sequence[Mark]) -> str:
    places = sorted(mark.values for mark in marks if mark.image_index == image)
    return f"{image + 1} " + " ".join(f"{i} {int(x):03d} {int(y):03d}" for i, (x, y) in enumerate(places, 1))


def _by_phrase(marks: Sequence[Mark]) -> dict[str, list[Mark]]:
    groups: dict[str, list[Mark]] = {}
    for mark in marks:
        groups.setdefault(mark.phrase, []).append(mark)
    return groups


def _quoted(phrase: str) -> str:
    return _escaped(phrase).replace('"', "'")


def _escaped(phrase: str) -> str:
    return phrase.replace("<", "(").replace(">", ")")


def write_qwen_points(marks: Sequence[Mark]) -> str:
    """Return Qwen2.5-VL's form: ``<points x1="12" y1="34" alt="cup">cup</points>`` in pixels."""
    parts = []
    for phrase, group in _by_phrase(marks).items():
        spots = " ".join(
            f'x{i}="{plain_number(m.values[0])}" y{i}="{plain_number(m.values[1])}"'
            for i, m in enumerate(group, 1)
        )
        parts.append(f'<points {spots} alt="{_quoted(phrase)}">{_escaped(phrase)}</points>')
    return " ".join(parts)
