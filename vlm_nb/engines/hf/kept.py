"""A store with a cap in bytes; the least recently used leaves first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Values by key, up to ``cap`` bytes; the least recently used leave first."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.bytes = 0
        self._values: OrderedDict[str, tuple[T, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> T | None:
        """The value of ``key``, used just now."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: str, value: T, size: int) -> None:
        """Keep ``value`` of ``size`` bytes in place of what the key had; too large a one is not kept."""
        self.bytes -= self._values.pop(key, (value, 0))[1]
        if size > self.cap:
            return
        self._values[key] = (value, size)
        self.bytes += size
        while self.bytes > self.cap:
            self.bytes -= self._values.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self.bytes = 0
