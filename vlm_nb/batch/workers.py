"""Daemon threads that take tasks from a queue: a download that hangs must not keep Python from exiting."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

Task = Callable[[], None]


class Workers:
    """``count`` threads; tasks must not raise. After ``stop`` what is queued is dropped."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count or min(8, (os.cpu_count() or 1) + 2)
        self.stopped = threading.Event()
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._started = 0

    def add(self, task: Task) -> None:
        """Queue a task; threads start as tasks come."""
        self._tasks.put(task)
        if self._started < self.count:
            self._started += 1
            threading.Thread(target=self._run, name=f"vlm_nb-prepare-{self._started}", daemon=True).start()

    def stop(self) -> None:
        """End the threads after their present task."""
        self.stopped.set()
        for _ in range(self._started):
            self._tasks.put(None)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            if not self.stopped.is_set():
                task()
            del task  # what it held must not outlive it while the thread waits
