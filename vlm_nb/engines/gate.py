"""The gate between models that run and a model that is being built, for the whole process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from .faults import raise_if_cancelled
from .tickets import POLL_SECONDS


class ModelGate:
    """Many threads may run models at once, or one may instantiate a model, never both.

    ``from_pretrained`` changes torch's default dtype, which every thread sees; a model running meanwhile
    could compute in the wrong one. A waiting ``instantiate`` goes before new ``running`` blocks.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._instantiating = False
        self._waiting = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Hold while model code runs. Not re-entrant."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def let_loads_pass(self) -> None:
        """Inside ``running``, between two steps: let a waiting load go first."""
        if self._waiting:
            self._leave()
            self._enter()

    @contextlib.contextmanager
    def instantiate(self, cancelled: threading.Event) -> Iterator[None]:
        """Hold while a model is built; one thread at a time. Raises Cancelled if cancelled while waiting."""
        with self._changed:
            self._waiting += 1
            try:
                while self._running or self._instantiating:
                    raise_if_cancelled(cancelled)
                    self._changed.wait(POLL_SECONDS)
                self._instantiating = True
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._instantiating = False
                self._changed.notify_all()

    def _enter(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not (self._instantiating or self._waiting))
            self._running += 1

    def _leave(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()


MODEL_GATE = ModelGate()
