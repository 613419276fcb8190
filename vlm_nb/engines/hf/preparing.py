"""Encoding ahead: requests become tensors in threads of their own while the engine's thread runs the model.

The threads read requests only. Rows, caches and the device stay with the engine's thread, which takes what is
ready between two steps.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...errors import VLMError
from ...request import Request
from ..base import Ticket, as_vlm_error
from .encoding import Encoded
from .sampling import Sampler

READY_BYTES = 128 * 2**20
READY_FOR_A_GPU = 2**30  # of its 32 slots each may have a megapixel waiting
CLOSE_SECONDS = 5.0
PROCESSORS_FOR_TWO = 4
MOST_FOR_A_GPU = 8


def thread_count(device: torch.device) -> int:
    """Two threads where there are processors to spare, else one; half of the processors for a GPU."""
    processors = os.cpu_count() or 1
    if device.type == "cuda":
        return max(1, min(MOST_FOR_A_GPU, processors // 2))
    return 2 if processors >= PROCESSORS_FOR_TWO else 1


def ready_bytes(device: torch.device) -> int:
    """How many bytes of tensors may wait for the model."""
    return READY_FOR_A_GPU if device.type == "cuda" else READY_BYTES


@dataclass(slots=True, eq=False)
class Task:
    """One request on its way to a row; ``result`` is there once it is ready."""

    ticket: Ticket
    sampler: Sampler
    begun: bool = False
    result: Encoded | VLMError | None = None

    @property
    def urgent(self) -> bool:
        """Whether a person waits for it."""
        return self.ticket.request.interactive

    @property
    def size(self) -> int:
        """Bytes of the result."""
        return self.result.nbytes if isinstance(self.result, Encoded) else 0


class Preparing:
    """Tasks that wait, are being encoded, or are ready; taken in the order in which they were added.

    Urgent ones overtake the others. No other task is begun while what is ready has ``cap`` bytes.
    """

    def __init__(self, encode: Callable[[Request], Encoded], threads: int, cap: int = READY_BYTES) -> None:
        self._cap = cap
        self._changed = threading.Condition()
        self._tasks: list[Task] = []
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, args=(encode,), name=f"vlm_nb-encode-{n}", daemon=True)
            for n in range(threads)
        ]
        self._started = False

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def tickets(self) -> list[Ticket]:
        """The tickets of all tasks."""
        return [task.ticket for task in self._tasks]

    def add(self, task: Task) -> None:
        """Queue a task; the threads start with the first one."""
        with self._changed:
            before = sum(other.urgent for other in self._tasks) if task.urgent else len(self._tasks)
            self._tasks.insert(before, task)
            self._changed.notify_all()
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()

    def take(self) -> Task | None:
        """Remove and return the next task, if it is ready."""
        with self._changed:
            task = self._ready()
            if task is not None:
                self._tasks.remove(task)
                self._changed.notify_all()
            return task

    def wait(self, seconds: float) -> None:
        """Wait until a task can be taken, at most ``seconds``."""
        with self._changed:
            self._changed.wait_for(self._ready, seconds)

    def _ready(self) -> Task | None:
        for task in self._tasks:
            if task.result is not None:
                return task
            if not task.urgent:  # those behind it must not overtake it
                return None
        return None

    def forget(self, ticket: Ticket) -> None:
        """Leave a ticket out from now on."""
        with self._changed:
            self._tasks = [task for task in self._tasks if task.ticket is not ticket]
            self._changed.notify_all()

    def close(self) -> None:
        """Forget all tasks and end the threads, each after what it is at."""
        with self._changed:
            self._closed = True
            self._tasks = []
            self._changed.notify_all()
        for thread in self._threads if self._started else []:
            thread.join(CLOSE_SECONDS)

    # In the threads -----------------------------------------------------------------------------------------

    def _run(self, encode: Callable[[Request], Encoded]) -> None:
        with torch.inference_mode():
            while (task := self._begin()) is not None:
                self._encode(encode, task)
                del task  # while the thread waits it must keep no image alive

    def _begin(self) -> Task | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._next())
            task = self._next()
            if task is not None:
                task.begun = True
            return None if self._closed else task

    def _next(self) -> Task | None:
        task = next((task for task in self._tasks if not task.begun), None)
        full = sum(other.size for other in self._tasks) >= self._cap
        return None if task is None or (full and not task.urgent) else task

    def _encode(self, encode: Callable[[Request], Encoded], task: Task) -> None:
        try:
            result: Encoded | VLMError = encode(task.ticket.request)
        except Exception as error:  # noqa: BLE001 - it is this request's own
            result = as_vlm_error(error)
        with self._changed:
            task.result = result
            self._changed.notify_all()
