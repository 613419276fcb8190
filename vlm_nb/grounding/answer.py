"""What surrounds the boxes in an answer: reasoning, plain "there are none", and the caption that is left."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from .base import Span
from .strings import numbers_in

_THOUGHTS = (("<think>", "</think>"), ("<thinking>", "</thinking>"), ("◁think▷", "◁/think▷"))
_ANSWER = ("<answer>", "</answer>")

_SEEN = "found detected visible present seen shown located depicted identified here".replace(" ", "|")
_PICTURE = "(?:image|picture|photo|scene)"
_NONE = re.compile(
    rf"""(?ix)
    ^[^\w]*(?: none | nothing | n/?a | no | empty )[^\w]*$
    | ^[^\w]*(?: none | nothing | no\b(?!,) )[^.?!]* \b(?: {_SEEN} | (?:in|on)\ (?:the|this)\ {_PICTURE} )\b
    | ^[^\w]* not\ (?: {_SEEN} )\b
    | \b there\ (?: isn't | aren't )\b
    | \b there\ (?:is|are|was|were)\ (?: none | not\ an? | not\ any | nothing )\b
    | \b there\ (?:is|are|was|were)\ no \b (?!\ (?:doubt|question|problem))
    | \b {_PICTURE}\ (?: does\ not | doesn't | did\ not )\ (?: contain | show | have | include | depict )\b
    | \b (?: do\ not | don't | did\ not | didn't | cannot | can\ not | can't | could\ not | couldn't )
        \ (?: see | find | detect | locate | spot | identify )
        \ (?: an? | any | the | such )\b (?!\ {_PICTURE})
    | \b (?: is | are | was | were )\ not\ (?: {_SEEN} | in\ (?:the|this)\ {_PICTURE} )\b
    """
)
_NONE_LIMIT = 300
_FENCES = ("```", "```json", "```xml")


@dataclass(frozen=True, slots=True)
class Part:
    """What is left of a text. ``pieces`` are (position here, position in the whole text), in order."""

    text: str
    pieces: tuple[tuple[int, int], ...] = ((0, 0),)

    def span_in_whole(self, span: Span) -> Span:
        """Return the place in the whole text of the characters at ``span``."""
        return self._position(span[0]), self._position(span[1] - 1) + 1

    def _position(self, at: int) -> int:
        here, there = self.pieces[bisect_right(self.pieces, at, key=lambda piece: piece[0]) - 1]
        return there + at - here


def part_of(text: str, within: Span, specials: Sequence[str]) -> Part:
    """Return the text at ``within``, without ``<answer>`` tags and without ``specials``."""
    start, end = within
    pieces, kept, length = [], [], 0
    for match in re.finditer("|".join(map(re.escape, (*_ANSWER, *specials))), text[start:end]):
        pieces.append((length, start))
        kept.append(text[start : within[0] + match.start()])
        length += len(kept[-1])
        start = within[0] + match.end()
    return Part("".join([*kept, text[start:end]]), (*pieces, (length, start)))


def split_thinking(text: str) -> tuple[str | None, Span, bool]:
    """Return (thinking, where the answer stands, cut): the reasoning before it, and whether that never ended.

    A closing tag without an opening one counts (chat templates put the opening one into the prompt).
    """
    for opening, closing in _THOUGHTS:
        end = text.find(closing)
        begin = text.find(opening)
        if end >= 0:
            head = text[:end].replace(opening, "")
            return head.strip(), (end + len(closing), len(text)), False
        if begin >= 0:
            return text[begin + len(opening) :].strip(), (0, begin), True
    return None, (0, len(text)), False


def says_none(answer: str) -> bool:
    """Whether a short plain answer says that nothing is there: "There are no cats in the image."

    A long text is not a plain "none", and neither is one with several numbers: they may be a place.
    """
    if len(answer) > _NONE_LIMIT or len(numbers_in(answer)) > 1:
        return False
    answer = " ".join(answer.replace("’", "'").split())
    return _NONE.search(answer) is not None


def without_cuts(text: str, cuts: Sequence[tuple[int, int, str]]) -> str:
    """Return ``text`` with each (start, end, replacement) applied and the white space around it tidied."""
    if not cuts:
        return text.strip()
    pieces: list[str] = []
    done = 0
    for start, end, replacement in sorted(cuts, key=lambda cut: (cut[0], -cut[1])):
        if start >= done:
            _join(pieces, text[done:start])
            _join(pieces, replacement)
            done = end
    _join(pieces, text[done:])
    lines = [line.rstrip() for line in "".join(pieces).split("\n") if line.strip() not in _FENCES]
    return "\n".join(line for i, line in enumerate(lines) if line or (i and lines[i - 1])).strip()


def _join(pieces: list[str], piece: str) -> None:
    """Append without doubling the space at the seam."""
    if pieces and pieces[-1].endswith((" ", "\n")) and piece.startswith(" "):
        piece = piece.lstrip(" ")
    if piece:
        pieces.append(piece)
