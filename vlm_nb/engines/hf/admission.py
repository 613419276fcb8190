"""Which waiting rows are prefilled next, together: alike in kind and length, within tokens and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .batching import Row

LIKE = 0.7  # rows that are prefilled together are at least this long, relative to the longest
JOIN = 8  # a round of prefill waits until an eighth of the slots is free


def first_in_line(waiting: Sequence[Row], running: int, slots: int) -> tuple[Row, int] | None:
    """The row that comes next, and for how many rows there is room; None if prefill has to wait.

    An interactive row comes first, at once, and may exceed ``slots`` by one.
    """
    if not waiting:
        return None
    first = next((row for row in waiting if row.ticket.request.interactive), waiting[0])
    urgent = first.ticket.request.interactive and not first.single
    room = max(slots - running, int(urgent and running <= slots))
    enough = min(max(1, slots // JOIN), len(waiting))
    if room <= 0 or (running and not urgent and room < enough):
        return None
    return first, room


@dataclass(frozen=True, slots=True)
class Limits:
    """``budget`` are tokens of one prefill, padding included; ``memory`` tokens that the block may hold.

    None is any number. ``known`` is how many tokens of a row's prompt are known already; with ``sharing``
    rows on one image go one after the other, so that the first one's keys and values serve the next.
    """

    budget: int
    memory: int | None
    known: Mapping[Row, int]
    sharing: bool

    def group(self, first: Row, waiting: Sequence[Row], running: Sequence[Row], room: int) -> list[Row]:
        """``first`` and those that fit with it, at most ``room``; none if ``first`` does not fit as it is."""
        chosen = [first]
        if running and not self._fits(chosen, running):
            return []
        for row in self._alike(first, waiting)[: room - 1]:
            if self._fits([*chosen, row], running):
                chosen.append(row)
        return chosen

    def _alike(self, first: Row, waiting: Sequence[Row]) -> list[Row]:
        """Waiting rows of the kind of ``first``, those nearest in length first."""
        kind, pictures, others = first.kind, {first.encoded.image_keys}, []
        for row in waiting:
            keys = row.encoded.image_keys
            again = self.sharing and bool(keys) and keys in pictures
            if row is not first and not again and row.kind == kind:
                others.append(row)
                pictures.add(keys)
        return sorted(others, key=lambda row: abs(row.length - first.length))

    def _fits(self, rows: Sequence[Row], running: Sequence[Row]) -> bool:
        """Whether ``rows`` are alike in length, within the budget, and have room for their answers."""
        new = [row.length - self.known.get(row, 0) for row in rows]
        if len(rows) > 1 and (min(new) < LIKE * max(new) or max(new) * len(rows) > self.budget):
            return False
        everyone = [*running, *rows]
        return self.memory is None or max(row.most for row in everyone) * len(everyone) <= self.memory
