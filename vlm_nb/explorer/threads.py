"""The Explorer's own threads: workers that run functions in order, and the pump that reads answers.

Handlers of widget messages only put something into one of these and return: nothing waits in the kernel's
threads. All are daemons and end with ``close``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from ..engines.base import Outbox, Ticket
from ..request import Completion

log = logging.getLogger("vlm_nb")
INTERVAL = 1 / 15
BYTES_PER_SECOND = 600_000
BURST = 1_500_000


class Worker:
    """One thread that runs functions one after the other. It starts with the first of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.closed = False

    def put(self, function: Callable[[], None]) -> None:
        """Run ``function`` when the earlier ones are done; after ``close`` it is dropped."""
        with self._lock:
            if self.closed:
                return
            self._queue.put(function)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread after the function that runs now."""
        with self._lock:
            self.closed = True
            self._queue.put(None)

    def _run(self) -> None:
        while (function := self._queue.get()) is not None:
            if self.closed:
                return
            try:
                function()
            except Exception:  # the thread must survive; what users shall see is caught by the functions
                log.debug("%s failed", self._name, exc_info=True)
            del function


class Pump:
    """The thread that reads the outbox of all tickets and tells of changes at most 15 times a second.

    ``changed(ticket)`` is called when there is more text, ``ended(ticket)`` once with its completion set.
    """

    def __init__(self, changed: Callable[[Ticket], None], ended: Callable[[Ticket], None]) -> None:
        self.outbox: Outbox = SimpleQueue()
        self._changed, self._ended = changed, ended
        self._worker = Worker("vlm_nb-explorer-pump")
        self._started = False

    def start(self) -> None:
        """Start reading; twice is fine."""
        if not self._started:
            self._started = True
            self._worker.put(self._run)

    def close(self) -> None:
        """End the thread."""
        self._worker.close()
        self.outbox.put((None, None))  # type: ignore[arg-type]  # wakes the reader up

    def _run(self) -> None:
        while not self._worker.closed:
            self._beat(self.outbox.get())

    def _beat(self, first: Any) -> None:
        """Gather events for one interval (an ended answer is told at once), then tell."""
        grown: dict[int, Ticket] = {}
        ended: dict[int, Ticket] = {}
        until = time.monotonic() + INTERVAL
        while first is not None and first[0] is not None:
            ticket, event = first
            (ended if isinstance(event, Completion) else grown)[id(ticket)] = ticket
            first = None if ended else self._next(until)
        for key in grown.keys() - ended.keys():
            self._tell(self._changed, grown[key])
        for ticket in ended.values():
            self._tell(self._ended, ticket)

    def _tell(self, listener: Callable[[Ticket], None], ticket: Ticket) -> None:
        try:
            listener(ticket)
        except Exception:  # a closed widget, say: the other answers go on
            log.debug("an answer could not be shown", exc_info=True)

    def _next(self, until: float) -> Any:
        try:
            return self.outbox.get(timeout=max(0.0, until - time.monotonic()))
        except Empty:
            return None


class Pace:
    """Keeps what is sent below the server's limit (1 MB/s over 3 s); beyond it messages would be lost."""

    def __init__(self, rate: float = BYTES_PER_SECOND, burst: float = BURST) -> None:
        self._rate, self._burst = rate, burst
        self._room, self._then = burst, time.monotonic()

    def wait(self, size: int) -> None:
        """Sleep until ``size`` bytes may go out."""
        delay = self.delay(size, time.monotonic())
        if delay > 0:
            time.sleep(delay)

    def delay(self, size: int, now: float) -> float:
        """Book ``size`` bytes at the time ``now`` and return how many seconds to wait first."""
        self._room = min(self._burst, self._room + (now - self._then) * self._rate)
        self._then = now
        self._room -= size
        return max(0.0, -self._room / self._rate)
