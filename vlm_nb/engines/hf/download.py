"""Downloading files side by side, counted in bytes, stopped at once.

The threads are daemons of our own: those of huggingface_hub's pool would keep the interpreter from exiting
until a download of gigabytes has ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from ...errors import Cancelled
from ..base import Progress, raise_if_cancelled

WORKERS = 4
POLL_SECONDS = 0.1
Report = Callable[[Progress], None]


class Meter:
    """Counts the bytes of several downloads, and stops them."""

    def __init__(self, text: str, total: int, done: int, cancelled: threading.Event) -> None:
        self.text, self.total, self.done = text, total, float(done)
        self.stop = threading.Event()
        self.cancelled = cancelled
        self._lock = threading.Lock()

    def add(self, count: float) -> None:
        """Count bytes that arrived; raises Cancelled in the thread that downloads once all should stop."""
        if self.stop.is_set() or self.cancelled.is_set():
            raise Cancelled("loading was cancelled.")
        with self._lock:
            self.done += count

    def report(self) -> Progress:
        """How far all files together are."""
        return Progress(text=self.text, done=min(self.done, self.total), total=float(self.total))

    def bar(self) -> type:
        """A class that huggingface_hub takes for a progress bar."""
        add = self.add

        class Bar:
            def __init__(
                self, *args: Any, initial: float = 0, total: float | None = None, **kwargs: Any
            ) -> None:
                self.n, self.total = initial, total
                add(initial or 0)

            def update(self, count: float | None = 1) -> None:
                add(count or 0)

            def update_transfer(self, count: float | None = 1) -> None:
                """The same bytes as seen by the network; counted once."""

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *exception: object) -> None:
                """Nothing to close."""

            def __getattr__(self, name: str) -> Any:
                return lambda *args, **kwargs: None

        return Bar


def in_threads(work: Callable[[str], None], names: list[str], meter: Meter, progress: Report) -> None:
    """Run ``work`` on each of ``names`` in daemon threads; report and watch for cancel from this one."""
    todo: SimpleQueue[str] = SimpleQueue()
    failures: list[BaseException] = []
    for name in names:
        todo.put(name)

    def run() -> None:
        with suppress(Empty):
            while not meter.stop.is_set():
                name = todo.get_nowait()
                try:
                    work(name)
                except BaseException as error:  # noqa: BLE001 - carried to the thread that waits
                    failures.append(error)
                    meter.stop.set()

    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(WORKERS, len(names)))]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            raise_if_cancelled(meter.cancelled)
            progress(meter.report())
            threads[0].join(POLL_SECONDS) if threads[0].is_alive() else time.sleep(POLL_SECONDS)
    finally:
        meter.stop.set()
    if failures:
        raise failures[0]
    if names:
        progress(meter.report())
