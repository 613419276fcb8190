"""JSON boxes: ``[{"bbox_2d": [10, 20, 110, 120], "label": "cat"}]`` and its many relatives.

Read by key names that the families share; what the numbers mean follows the family, never the key.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Sequence
from itertools import islice

from .base import Mark, Reading, Span
from .places import corners_in, places_in, point_in
from .scan import Found, Root, Value, scan
from .strings import NUMBER, number

BOX_KEYS = ("bbox_2d", "box_2d", "bbox", "bounding_box", "boundingbox")
"""Keys that mark a box wherever they stand."""
LOOSE_BOX_KEYS = ("box", "bboxes", "boxes", "bounding_boxes", "coordinates", "coords", "position", "location")
"""Keys that hold boxes when grounding was asked for (an ordinary JSON answer may use these words too)."""
POINT_KEYS = ("point_2d", "point2d")
LOOSE_POINT_KEYS = ("point", "points", "center")
LABEL_KEYS = (
    *("label", "name", "phrase", "class", "class_name", "category"),
    *("object", "text_content", "text", "description"),
)
LIST_KEYS = ("objects", "detections", "results", "items", "annotations", "output", "data", "answer")
SCORE_KEYS = ("confidence", "score")
MAX_LOOK = 64
"""Numbers of an object that are looked at to find where its next place stands."""
_FREE_NUMBER = re.compile(rf"(?<![\w.]){NUMBER}")
_FENCE_BEFORE = re.compile(r"`{3}[ \t]*\w{0,16}\s{0,8}\Z")
_FENCE_AFTER = re.compile(r"\s{0,8}`{3}")
_NO_BOXES = re.compile(r"\s*`{3}json\s*\[\s*\]\s*`{3}\s*")
"""A whole answer that is an empty fenced list: markup without boxes, whether they were asked for or not."""
_BULLET = re.compile(r"^[\s>*#-]*(?:[0-9]{1,3}[.)])?[\s*_`\"']*")


def read_objects(text: str, asked: bool) -> Reading:
    """Read every object with a box or point key; bare lists of numbers too when grounding was asked for."""
    if '{\\"' in text or '[\\"' in text:  # JSON inside a JSON string
        text = text.replace('\\"', ' "').replace("\\n", " \n")
    asked = asked or _NO_BOXES.fullmatch(text) is not None
    reading = Reading()
    before = _Progress()
    for found in scan(text):
        if isinstance(found, Root):
            _end_root(text, found, reading, asked, before)
        elif isinstance(found.value, dict):
            _read_object(_Places(text, found), found.value, reading, asked)
        elif asked:
            _read_list(text, found, found.value, reading, before)
    return reading


class _Places:
    """Finds where in an object its places stand: each after the one before, so that all take one pass."""

    def __init__(self, text: str, found: Found) -> None:
        self.key, self.inside = found.key, found.inside
        self._numbers = _FREE_NUMBER.finditer(text, found.start, found.end)

    def span(self, place: Sequence[float]) -> Span | None:
        """Where the numbers of ``place`` follow one another (with nothing but words between them)."""
        window: deque[re.Match[str]] = deque(maxlen=len(place))
        for match in islice(self._numbers, MAX_LOOK):
            window.append(match)
            if [number(one.group()) for one in window] == list(place):
                return window[0].start(), match.end()
        self._numbers = iter(())
        return None


class _Progress:
    """What the reading held when the current outermost bracket began."""

    def __init__(self) -> None:
        self.state = (0, 0, False)
        self.label = ""

    def moved(self, reading: Reading) -> bool:
        """Whether anything was added since; start counting anew."""
        earlier, self.state = self.state, (len(reading.marks), reading.refused, reading.empty)
        self.label = ""
        return self.state != earlier


def _end_root(text: str, root: Root, reading: Reading, asked: bool, before: _Progress) -> None:
    if asked and root.empty and text[root.start] in "[{":
        reading.empty = True
    elif not before.moved(reading) and not _cut_list(text, root, reading, asked):
        return
    reading.truncated |= not root.closed
    reading.cuts.append((*_with_fence(text, root.start, root.end), ""))


def _cut_list(text: str, root: Root, reading: Reading, asked: bool) -> bool:
    """Whether the text ends inside one more bare list after the ones that were read."""
    return asked and bool(reading.marks) and not root.closed and text[root.start] in "[{"


def _with_fence(text: str, start: int, end: int) -> tuple[int, int]:
    opening = _FENCE_BEFORE.search(text, max(0, start - 30), start)
    if opening is None:
        return start, end
    closing = _FENCE_AFTER.match(text, end)
    return opening.start(), closing.end() if closing else end


def _read_object(found: _Places, value: dict[str, Value], reading: Reading, asked: bool) -> None:
    if not value or (found.inside and found.key.lower() in BOX_KEYS + LOOSE_BOX_KEYS):
        return  # nothing in it, or the object around it reads it
    fields = {key.lower(): item for key, item in value.items()}
    loose = (*LOOSE_BOX_KEYS, *LIST_KEYS) if asked else ()
    score = _score(fields)
    labels = _labels(fields, found.key)
    known = False
    for key in (*BOX_KEYS, *loose):
        if key in fields and not _holds_objects(fields[key]):
            known = True
            _add_boxes(fields[key], 4, labels, score, reading, found, strict=key in BOX_KEYS)
    for key in (*POINT_KEYS, *(LOOSE_POINT_KEYS if asked else ())):
        if key in fields and not _holds_objects(fields[key]):
            known = True
            _add_boxes(fields[key], 2, labels, score, reading, found, strict=key in POINT_KEYS)
    if not known and not _add_corners(fields, labels, score, reading, found, asked) and asked:
        _add_named(value, reading, found)


def _holds_objects(value: Value) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _add_boxes(
    value: Value,
    size: int,
    labels: Sequence[str],
    score: float | None,
    reading: Reading,
    found: _Places,
    *,
    strict: bool,
) -> None:
    places = list(places_in(value, size))
    if not places and isinstance(value, list) and not value:
        reading.empty = True
    elif not places and strict:
        reading.refuse()
    for index, place in enumerate(places):
        _add(_nth(labels, index), place, score, reading, found.span(place))


def _nth(labels: Sequence[str], index: int) -> str:
    if len(labels) == 1:
        return labels[0]
    return labels[index] if index < len(labels) else ""


def _add(
    label: str,
    place: Sequence[float],
    score: float | None,
    reading: Reading,
    span: Span | None,
    *,
    named: bool = False,
) -> None:
    if all(math.isfinite(v) for v in place):
        reading.add(Mark(label, tuple(place), confidence=score, named=named, span=span))
    else:
        reading.refuse()


def _add_corners(
    fields: dict[str, Value],
    labels: Sequence[str],
    score: float | None,
    reading: Reading,
    found: _Places,
    asked: bool,
) -> bool:
    place = corners_in(fields) or (point_in(fields) if asked else [])
    if place:
        _add(labels[0] if labels else "", place, score, reading, found.span(place), named=True)
    return bool(place)


def _add_named(fields: dict[str, Value], reading: Reading, found: _Places) -> None:
    """Read ``{"cat": [10, 20, 110, 120], …}``: phrases as keys."""
    for key, value in fields.items():
        listed = isinstance(value, list) and not _holds_objects(value)
        for place in places_in(value, 4) if listed else ():
            _add(key, place, None, reading, found.span(place))


def _labels(fields: dict[str, Value], key: str) -> list[str]:
    for name in (*LABEL_KEYS, "labels", "names", "classes", "phrases"):
        value = fields.get(name)
        if isinstance(value, (str, float)):
            return [value if isinstance(value, str) else f"{value:g}" if math.isfinite(value) else ""]
        if isinstance(value, list) and any(isinstance(item, str) for item in value):
            return [item if isinstance(item, str) else "" for item in value]
    return [] if key.lower() in LIST_KEYS else [key] if key else []


def _score(fields: dict[str, Value]) -> float | None:
    for name in SCORE_KEYS:
        value = fields.get(name)
        if isinstance(value, float) and 0.0 <= value <= 1.0:
            return value
    return None


def _read_list(text: str, found: Found, items: list[Value], reading: Reading, before: _Progress) -> None:
    """Read a free list of four numbers (asked only).

    Its phrase is what stands before it on the line; lists in one outer bracket share the first one's.
    """
    numbers = [item for item in items if isinstance(item, float)]
    if len(numbers) != 4:
        return
    words = [item for item in items if isinstance(item, str)]
    label = words[0] if words else phrase_before(text, found.start) or before.label
    before.label = label
    _add(label, numbers, None, reading, (found.start, found.end))


def phrase_before(text: str, start: int) -> str:
    """Return the phrase that introduces the bracket at ``start``: "2. **Red car**: [" gives "Red car".

    "car[[" gives "car" too: InternVL's answers without its special tokens.
    """
    line = text[max(0, start - 80) : start].rpartition("\n")[2].rstrip("[(")
    if not line.rstrip().endswith((":", "=", "-", "–")) and not line[-1:].isalnum():
        return ""
    line = line.rstrip()
    line = _BULLET.sub("", line).rstrip(":=-– \t*_`\"'")
    return line if len(line.split()) <= 8 and not set(line) & set("[](){}") else ""
