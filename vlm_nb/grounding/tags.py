"""Tagged boxes: ``<ref>cat</ref><box>[[253, 231, 733, 787]]</box>`` in all its spellings.

One reader for Qwen-VL, Qwen2-VL, InternVL, DeepSeek-VL2, MiniCPM-V and GLM-V: the tags differ in spelling,
and the brackets inside vary within one family too (zai-org/GLM-V, README.md says so).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from .base import Mark, Reading, Span, Writer
from .objects import read_objects
from .strings import NUMBERS, number, numbers_in
from .writing import plain_number

MAX_TAGS = 100_000
_TAG = re.compile(
    r"(?P<ref><ref>|<\|object_ref_start\|>|<\|ref\|>)"
    r"|(?P<ref_end></ref>|<\|object_ref_end\|>|<\|/ref\|>)"
    r"|(?P<box><b?box>|<\|box_start\|>|<\|det\|>|<\|begin_of_box\|>)"
    r"|(?P<point><point>|<\|point_start\|>)"
    r"|(?P<end></b?box>|<\|box_end\|>|<\|/det\|>|<\|end_of_box\|>|</point>|<\|point_end\|>)"
)
_CUT_TAG = re.compile(r"<\|?/?[a-z_|]{0,24}\Z")
_GROUP = re.compile(r"[\[(<{]([^\[\](){}<>]*)[\])>}]")
_NUM = r"\s{0,4}-?[0-9]{1,9}(?:\.[0-9]{1,9})?\s{0,4}"
_PAIRS = re.compile(rf"\({_NUM},{_NUM}\)\s{{0,4}},?\s{{0,4}}\({_NUM},{_NUM}\)")


@dataclass(slots=True)
class _State:
    """What the reader is in the middle of; ``anchor`` is the end of the last tag."""

    text: str
    reading: Reading
    label: str = ""
    used: bool = False
    ref_start: int = -1
    open_kind: str = ""
    open_start: int = 0
    open_end: int = 0
    anchor: int = 0


def read_tags(text: str, asked: bool) -> Reading:
    """Read every tagged box and point; a phrase in ref tags belongs to the boxes that follow it."""
    state = _State(text, Reading())
    for count, tag in enumerate(_TAG.finditer(text)):
        if count >= MAX_TAGS:
            break
        _step(state, tag.lastgroup or "", tag.start(), tag.end())
        state.anchor = tag.end()
    _finish(state)
    return state.reading


def _step(state: _State, kind: str, start: int, end: int) -> None:
    if state.open_kind:  # a box ends at its closing tag, or at any other tag if that was lost
        _end_box(state, start, end if kind == "end" else start, closed=True)
    if kind in ("box", "point"):
        _open_box(state, kind, start, end)
    elif kind == "ref":
        state.ref_start = end
        state.reading.cuts.append((start, end, ""))
    elif kind == "ref_end":
        _end_ref(state, start, end)
    elif not _ended_here(state, end):
        state.reading.cuts.append((start, end, ""))


def _ended_here(state: _State, end: int) -> bool:
    return bool(state.reading.cuts) and state.reading.cuts[-1][1] >= end


def _end_ref(state: _State, start: int, end: int) -> None:
    if state.ref_start >= 0:
        state.label, state.used = state.text[state.ref_start : start][:500], False
    state.ref_start = -1
    state.reading.cuts.append((start, end, ""))


def _open_box(state: _State, kind: str, start: int, end: int) -> None:
    if state.ref_start >= 0:  # the closing ref tag was lost
        state.label, state.used, state.ref_start = state.text[state.ref_start : start][:500], False, -1
    between = state.text[state.anchor : start]
    if state.used and any(char.isalnum() for char in between):
        state.label = ""
    state.open_kind, state.open_start, state.open_end = kind, start, end


def _end_box(state: _State, content_end: int, end: int, *, closed: bool) -> None:
    size = 2 if state.open_kind == "point" else 4
    content = state.text[state.open_end : content_end]
    state.open_kind, state.used = "", True
    if _is_words(state, content):
        _not_a_place(state, content_end, end)
        return
    state.reading.markup = True
    _add_places(state, content if closed else _closed_part(content), size)
    state.reading.cuts.append((state.open_start, end, ""))


def _is_words(state: _State, content: str) -> bool:
    """Whether an open box holds no place at all. GLM wraps any short answer in its box tags."""
    if _is_glm(state) and not _GROUP.search(content):
        return len(numbers_in(content)) != 4
    return not any(char.isdigit() for char in content) and bool(content.strip(" \t\n[](){}<>,"))


def _is_glm(state: _State) -> bool:
    return state.text.startswith("<|begin_of_box|>", state.open_start)


def _not_a_place(state: _State, content_end: int, end: int) -> None:
    state.reading.cuts.append((state.open_start, state.open_end, ""))
    state.reading.cuts.append((content_end, end, ""))
    if not _is_glm(state):
        state.reading.refuse()


def _closed_part(content: str) -> str:
    """Return the part of an unfinished list up to its last closed bracket: later numbers may be cut."""
    return content[: max(content.rfind("]"), content.rfind(")"), content.rfind(">")) + 1]


def _add_places(state: _State, content: str, size: int) -> None:
    """Add the boxes in ``content``: groups of four, two pairs, or bare numbers; refuse what is neither."""
    groups = [_Group(numbers_in(m.group(1)), m.span()) for m in _GROUP.finditer(content)]
    groups = groups or _bare(content, size)
    for group in _paired(groups) if size == 4 else groups:
        if len(group.numbers) == size:
            start, end = group.span
            span = state.open_end + start, state.open_end + end
            state.reading.add(Mark(state.label.strip(), tuple(group.numbers), span=span))
        else:
            state.reading.refuse()
    if not groups:
        state.reading.refuse()


class _Group(NamedTuple):
    """Numbers that stand together, and where: (start, end) in the content of their tag."""

    numbers: list[float]
    span: Span


def _paired(groups: Sequence[_Group]) -> list[_Group]:
    """Join each corner pair ``(a, b), (c, d)`` into one group of four; empty groups go."""
    joined: list[_Group] = []
    half = False
    for group in groups:
        if half and len(group.numbers) == 2:
            first = joined[-1]
            joined[-1] = _Group(first.numbers + group.numbers, (first.span[0], group.span[1]))
            half = False
        elif group.numbers:
            joined.append(group)
            half = len(group.numbers) == 2
    return joined


def _bare(content: str, size: int) -> list[_Group]:
    found = list(islice(NUMBERS.finditer(content), 8_192))
    step = len(found) if len(found) % size else size
    runs = [found[i : i + step] for i in range(0, len(found), step)]
    return [_Group([number(m.group()) for m in run], (run[0].start(), run[-1].end())) for run in runs]


def _finish(state: _State) -> None:
    """The text ends: an open box keeps its closed groups, half a tag is dropped."""
    end = len(state.text)
    if state.open_kind:
        before = len(state.reading.marks)
        _end_box(state, end, end, closed=False)
        state.reading.truncated = True
        if len(state.reading.marks) == before:
            state.reading.markup = True
    elif state.reading.useful and (tail := _CUT_TAG.search(state.text, max(0, end - 28))):
        state.reading.truncated = True
        state.reading.cuts.append((tail.start(), end, ""))


def read_glm(text: str, asked: bool) -> Reading:
    """GLM-V: JSON inside or outside of its box tags, else bracketed numbers inside them."""
    reading = read_objects(text, False)
    if not reading.marks:
        return read_tags(text, asked)
    for tag in _TAG.finditer(text):
        reading.cuts.append((tag.start(), tag.end(), ""))
        if len(reading.cuts) > MAX_TAGS:
            break
    return reading


def read_pairs(text: str, asked: bool) -> Reading:
    """Read ``a dog(432,991),(711,999)``: Qwen2-VL decoded without its special tokens (asked only)."""
    reading = Reading()
    done = 0
    for match in _PAIRS.finditer(text) if asked else ():
        start = max(done, match.start() - 200)
        label = text[start : match.start()].rpartition("\n")[2].strip(" \t:;,.-")
        label = label if len(label) <= 120 else ""
        reading.add(Mark(label, tuple(numbers_in(match.group())), span=match.span()))
        reading.cuts.append((match.start(), match.end(), ""))
        done = match.end()
    return reading


def tag_writer(ref: Sequence[str], box: Sequence[str], style: str) -> Writer:
    """Return a writer that puts each phrase between ``ref`` and its box between ``box`` tags.

    ``style`` is how the numbers stand: "pairs" ``(a,b),(c,d)``, "nested" ``[[a, b, c, d]]`` or "bare".
    """

    def write(marks: Sequence[Mark]) -> str:
        parts = []
        for mark in marks:
            numbers = [plain_number(value) for value in mark.values]
            phrase = f"{ref[0]}{mark.phrase}{ref[1]}" if mark.phrase and ref else ""
            parts.append(f"{phrase}{box[0]}{_styled(numbers, style)}{box[1]}")
        return "".join(parts) if ref else " ".join(parts)

    return write


def _styled(numbers: Sequence[str], style: str) -> str:
    if style == "pairs":
        return f"({','.join(numbers[:2])}),({','.join(numbers[2:])})"
    return f"[[{', '.join(numbers)}]]" if style == "nested" else " ".join(numbers)
