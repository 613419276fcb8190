"""Answers that repeat themselves without end, noticed while they are written.

Only exact repeats count: a list whose boxes differ, or one that counts on, is no loop. Cutting an answer that
is right is worse than letting a loop run on to its limit, so a block must stand there many times over, and
over far more text than "ha ha ha", a ruled line or the empty rows of a table take.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

TIMES = 8
"""A block of any length must stand there so often."""
TOKENS = 256
"""… and take so many tokens together,"""
CHARACTERS = 1_200
"""or so many characters, where an engine tells text only."""
_LONGEST = 256
_LOOK = 12


class LoopWatch:
    """Looks at a growing answer (a list of tokens, or a text) whenever it has grown by ``every`` items."""

    def __init__(self, least: int, every: int, *, after: int = 0) -> None:
        self._least = least
        self._every = every
        self._next = max(least, after)

    @classmethod
    def of_tokens(cls, *, after: int = 0) -> LoopWatch:
        """A watch over token ids; ``after`` is a length before which nothing is cut."""
        return cls(TOKENS, 16, after=after)

    @classmethod
    def of_text(cls) -> LoopWatch:
        """A watch over text."""
        return cls(CHARACTERS, 64)

    def sees_loop(self, answer: Sequence[int] | str) -> bool:
        """Whether ``answer`` ends in a loop; looks only when it has grown enough since the last time."""
        if len(answer) < self._next:
            return False
        self._next = len(answer) + self._every
        return ends_in_loop(answer, self._least)


def ends_in_loop(answer: Sequence[int] | str, least: int) -> bool:
    """Whether one block stands at the end ``TIMES`` times or more, over ``least`` items or more."""
    tail = answer[-max(least, TIMES * _longest(least)) :]
    return any(_repeats(tail, period, max(least, TIMES * period)) for period in _periods(tail, least))


def _longest(least: int) -> int:
    """The longest block, in items, that is looked for."""
    return _LONGEST * max(1, least // TOKENS)


def _periods(tail: Sequence[int] | str, least: int) -> Iterator[int]:
    """Distances at which the last few items stand again."""
    last = tail[-_LOOK:]
    for period in range(1, min(len(tail) // TIMES, _longest(least)) + 1):
        if tail[-1 - period] == tail[-1] and tail[-_LOOK - period : -period] == last:
            yield period


def _repeats(tail: Sequence[int] | str, period: int, length: int) -> bool:
    if len(tail) < length:
        return False
    return tail[len(tail) - length : -period] == tail[len(tail) - length + period :]
