"""Prepared rows that wait for the engine, handed out in groups of about equal image size."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..asking import Prepared
from .book import Row

PATIENCE_SECONDS = 0.25
FIRST_GUESS = 1_000_000.0
"""Pixels of a prepared row, before the first is seen."""


@dataclass(slots=True)
class ReadyRow:
    """A row with its prepared request; ``area`` is its images' pixels, which its image tokens follow."""

    row: Row
    prepared: Prepared
    area: int

    @classmethod
    def of(cls, row: Row, prepared: Prepared) -> ReadyRow:
        """Measure the images."""
        return cls(row, prepared, sum(width * height for width, height in prepared.request.input_sizes))


class ReadyRows:
    """The look-ahead: a group starts with the row that has waited longest, so none waits for ever."""

    def __init__(self) -> None:
        self._mean = FIRST_GUESS
        self._rows: list[ReadyRow] = []
        self._since = time.monotonic()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def row_bytes(self) -> float:
        """About how many bytes one prepared row takes, going by the last ones."""
        return 3 * self._mean

    def add(self, ready: ReadyRow) -> None:
        """Put a row in."""
        if not self._rows:
            self._since = time.monotonic()
        self._rows.append(ready)
        self._mean += (ready.area - self._mean) / 32

    @property
    def impatient(self) -> bool:
        """Whether the rows have waited long enough to go as an incomplete group."""
        return bool(self._rows) and time.monotonic() - self._since > PATIENCE_SECONDS

    def take(self, count: int) -> list[ReadyRow]:
        """Remove and return the oldest row and those nearest to it in size: ``count`` in all."""
        oldest = self._rows[0].area
        order = sorted(range(len(self._rows)), key=lambda i: (abs(self._rows[i].area - oldest), i))
        chosen = set(order[:count])
        group = [self._rows[i] for i in sorted(chosen)]
        self._rows = [ready for i, ready in enumerate(self._rows) if i not in chosen]
        self._since = time.monotonic()
        return group
