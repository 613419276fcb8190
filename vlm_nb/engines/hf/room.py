"""A cache layer with room to spare: a token, a row that joins and a row that leaves cost no copy of the rest.

The stock layer copies all keys and values of all rows for every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

Stock: Any = DynamicLayer
COLUMNS = 64  # tokens that can be appended before everything is copied into new room
SPARE = 4  # a quarter as many rows more than there are
TOO_LARGE = 4  # the room is given back once a quarter of it would do


class RoomyLayer(Stock):  # type: ignore[misc]
    """Full attention. ``keys`` and ``values`` ([rows, heads, columns, size]) are parts of larger tensors.

    What is left of a row's own columns is zero or an older row's: finite, and never visible.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.keys: torch.Tensor
        self.values: torch.Tensor
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self.keys, self.values = layer.keys, layer.values
        self._rooms: list[torch.Tensor] = []
        self._start = self._end = 0
        self._move(len(layer.keys), layer.keys.shape[2])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append columns to every row; return all keys and values."""
        rows, end = len(key_states), self._end + key_states.shape[2]
        if end > self._rooms[0].shape[2]:
            self._move(rows, self._end - self._start)
            end = self._end + key_states.shape[2]
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[:rows, :, self._end : end] = states
        self._show(rows, self._start, end)
        return self.keys, self.values

    def settle(self, rooms: list[torch.Tensor]) -> None:
        """Copy all to the beginning of ``rooms``, which belong to somebody else, and live there.

        They are left for own ones as soon as they are too small.
        """
        width = self._end - self._start
        for room, part in zip(rooms, (self.keys, self.values), strict=True):
            room[: len(part), :, :width] = part
        self._rooms = rooms
        self._show(len(self.keys), 0, width)

    def lives_in(self, rooms: list[torch.Tensor]) -> bool:
        """Whether it has settled there and not moved since."""
        return self._rooms is rooms

    def count(self) -> None:
        """A column was written behind the last one by somebody else."""
        self._show(len(self.keys), self._start, self._end + 1)

    def cut(self, width: int) -> None:
        """Leave only the first ``width`` columns."""
        self._show(len(self.keys), self._start, self._start + width)

    def keep(self, rows: Sequence[int], width: int) -> None:
        """Leave only these rows, in this order, and their last ``width`` columns."""
        first = self._end - width
        if all(row >= n for n, row in enumerate(rows)):
            moved = [(n, row) for n, row in enumerate(rows) if row != n]
            for room in self._rooms:
                for n, row in moved:
                    room[n, :, first : self._end] = room[row, :, first : self._end]
        else:
            for room in self._rooms:
                room[: len(rows)] = room[list(rows)]
        self._show(len(rows), first, self._end)
        held, needed = self._rooms[0][:, 0, :, 0].numel(), len(rows) * (width + COLUMNS)
        if held > TOO_LARGE * needed:
            self._move(len(rows), width)

    def join(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put rows of any width behind these."""
        before, rows, wide = len(self.keys), len(self.keys) + len(keys), keys.shape[2]
        width = max(wide, self.keys.shape[2])
        if rows > len(self._rooms[0]) or width > self._end:
            self._move(rows, width)
        first = self._end - width
        for room, states in zip(self._rooms, (keys, values), strict=True):
            room[:before, :, first : self._start] = 0
            room[before:rows, :, first : self._end - wide] = 0
            room[before:rows, :, self._end - wide : self._end] = states
        self._show(rows, first, self._end)

    def _move(self, rows: int, width: int) -> None:
        """Copy all into new room for ``rows`` rows of ``width`` columns and more."""
        held, wide = len(self.keys), min(width, self.keys.shape[2])
        rooms = []
        for part in (self.keys, self.values):
            room = part.new_zeros(rows + rows // SPARE, part.shape[1], width + COLUMNS, part.shape[3])
            room[:held, :, width - wide : width] = part[:, :, part.shape[2] - wide :]
            rooms.append(room)
        self._rooms = rooms
        self._show(held, width - wide, width)

    def _show(self, rows: int, start: int, end: int) -> None:
        self._start, self._end = start, end
        self.keys, self.values = (room[:rows, :, start:end] for room in self._rooms)
