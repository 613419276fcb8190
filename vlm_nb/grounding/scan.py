"""A forgiving reader of bracketed text: JSON, Python literals, and what models make of them.

Never raises, needs no recursion, and reads each character a bounded number of times: a token is either
skipped or used once, a string ends at the first newline at the latest, nesting deeper than ``MAX_DEPTH``
starts anew, and after ``MAX_TOKENS`` tokens the reading ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .strings import MAX_LABEL, NUMBER, number, read_string, word_end

Value = float | str | list["Value"] | dict[str, "Value"]

MAX_DEPTH = 40
MAX_TOKENS = 150_000
MAX_ITEMS = 8_192

_OPENER = re.compile(r"[\[({]")
_TOKEN = re.compile(rf"""[\[\](){{}}]|["']|{NUMBER}|[^\W\d]\w*|[:,]""")
_COLON = re.compile(r"\s*:")
_NUMERIC = re.compile(rf"\s*{NUMBER}\s*%?\s*")
_LOOKALIKES = str.maketrans("“”‘’：，［］｛｝（）", "\"\"'':,[]{}()")
_NOT_NUMBERS = frozenset({"nan", "inf", "infinity", "null", "none"})


@dataclass(frozen=True, slots=True)
class Found:
    """An object (``dict``) anywhere, or a list that starts with a number or string outside of any object.

    ``start`` and ``end`` are its character span; ``key`` is the key that it hangs on in the object around
    it ("" without one); ``inside`` says whether an object is around it directly.
    """

    value: dict[str, Value] | list[Value]
    start: int
    end: int
    key: str = ""
    inside: bool = False


@dataclass(frozen=True, slots=True)
class Root:
    """The end of an outermost bracket: its span, whether it was closed, and whether nothing was in it."""

    start: int
    end: int
    closed: bool
    empty: bool


class _Open:
    """A bracket that is still open: ``items`` of a list, or ``fields`` and the waiting ``key``."""

    __slots__ = ("fields", "items", "key", "start", "touched")

    def __init__(self, start: int, is_object: bool) -> None:
        self.start = start
        self.fields: dict[str, Value] | None = {} if is_object else None
        self.items: list[Value] = []
        self.key: str | None = None
        self.touched = False

    def take(self, value: Value) -> None:
        """Put a finished value where it belongs; one without a key in an object is dropped."""
        self.touched = True
        if self.fields is None:
            if len(self.items) < MAX_ITEMS:
                self.items.append(value)
        elif self.key is not None:
            self.fields[self.key] = value
            self.key = None


def scan(text: str) -> Iterator[Found | Root]:
    """Yield every object and every free list of ``text`` when it ends, and each outermost bracket's end.

    Where the text stops inside brackets, objects are yielded with the fields that were complete: a list of
    numbers without its closing bracket is not, since its last number may be cut.
    """
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.written = text
        self.text = text if text.isascii() else text.translate(_LOOKALIKES)  # the same length
        self.stack: list[_Open] = []
        self.objects = 0
        self.pos = 0
        self.previous = ""

    def run(self) -> Iterator[Found | Root]:
        for _ in range(MAX_TOKENS):
            token = (_TOKEN if self.stack else _OPENER).search(self.text, self.pos)
            if token is None:
                break
            self.pos = token.end()
            yield from self._token(token.group(), token.start())
        yield from self._unwind(len(self.text))

    def _token(self, token: str, start: int) -> Iterator[Found | Root]:
        first = token[0]
        if first in "[({":
            yield from self._open(start, first == "{")
        elif first in "])}":
            yield from self._close(first == "}")
        elif first in "\"'":
            yield from self._quote(start)
        elif first not in ",:":
            self._bare(token)
        self.previous = first

    def _open(self, start: int, is_object: bool) -> Iterator[Found | Root]:
        if len(self.stack) >= MAX_DEPTH:
            yield from self._unwind(start)
        self.stack.append(_Open(start, is_object))
        self.objects += is_object

    def _close(self, is_object: bool) -> Iterator[Found | Root]:
        """Close the innermost bracket of that kind, and whatever was left open inside it."""
        wanted = self.objects if is_object else len(self.stack) - self.objects
        if not wanted:
            return
        while True:
            right_kind = (self.stack[-1].fields is not None) == is_object
            yield from self._pop(self.pos, complete=True)
            if right_kind:
                return

    def _quote(self, start: int) -> Iterator[Found | Root]:
        if self.previous not in "[({,:]})\"'":  # the apostrophe of a word
            return
        body, self.pos = read_string(self.text, start, self.written)
        numeric = len(body) <= 64 and _NUMERIC.fullmatch(body) is not None
        if _COLON.match(self.text, self.pos):
            yield from self._name(body)
        elif numeric and self.pos == len(self.text) and self.text[-1] not in "\"'":
            return  # the text ends inside the number
        elif numeric and self.stack[-1].fields is None:
            self.stack[-1].take(number(body.strip(" \t\r\n%")))
        else:
            self.stack[-1].take(body)

    def _bare(self, token: str) -> None:
        """Take a number, or a word: an unquoted key, an unquoted label, or a NaN that keeps its place."""
        top = self.stack[-1]
        if token[0] in "+-.0123456789":
            if self.pos < len(self.text):  # else the text may end inside the number
                top.take(number(token))
        elif _COLON.match(self.text, self.pos) and top.fields is not None:
            top.key = token
            top.touched = True
        elif token.lower() in _NOT_NUMBERS:
            top.take(float("nan"))
        elif top.key is not None:
            end = word_end(self.text, self.pos)
            top.take(self.written[self.pos - len(token) : end].strip()[:MAX_LABEL])
            self.pos = end
        elif top.fields is None and self.objects and not self.text[self.pos - len(token) - 1].isdigit():
            top.take(float("nan"))  # a word where a number belongs ("x1"), not a unit ("12px")

    def _name(self, key: str) -> Iterator[Found | Root]:
        """A quoted key: it ends a list that lost its closing bracket."""
        if self.stack[-1].fields is None and self.objects and len(self.stack[-1].items) == 4:
            yield from self._pop(self.pos, complete=True)
        if self.stack[-1].fields is not None:
            self.stack[-1].key = key[:MAX_LABEL].strip()
            self.stack[-1].touched = True

    def _pop(self, end: int, *, complete: bool) -> Iterator[Found | Root]:
        top = self.stack.pop()
        if complete and top.fields is None and not top.touched and self._holds_something(top.start, end):
            top.take(float("nan"))
        around = self.stack[-1] if self.stack else None
        if top.fields is not None:
            self.objects -= 1
            yield Found(top.fields, top.start, end, *_place(around))
        elif not complete:
            top.items = [item for item in top.items if isinstance(item, (list, dict))]
        elif not self.objects and top.items and not isinstance(top.items[0], (list, dict)):
            yield Found(top.items, top.start, end)
        if around is not None:
            _hand_over(top, around, complete=complete)
        else:
            yield Root(top.start, end, complete, complete and not top.touched)

    def _holds_something(self, start: int, end: int) -> bool:
        """Whether a list without any value holds more than white space: "[...]" does not say "none"."""
        return bool(self.text[start + 1 : end - 1].strip(" \t\r\n,"))

    def _unwind(self, end: int) -> Iterator[Found | Root]:
        while self.stack:
            yield from self._pop(end, complete=False)


def _place(around: _Open | None) -> tuple[str, bool]:
    if around is None or around.fields is None:
        return "", False
    return around.key or "", True


def _hand_over(top: _Open, around: _Open, *, complete: bool) -> None:
    value: Value = top.items if top.fields is None else top.fields
    if complete or value:
        around.take(value)
