"""What an engine's thread is sent: functions to run between two steps, and requests for its backend."""

from __future__ import annotations

import contextlib
import copy
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from ..errors import VLMError
from .faults import forget_frames
from .tickets import Ticket


@dataclass(slots=True)
class Call:
    """A function to run on the engine's thread."""

    function: Callable[[], Any]
    future: Future[Any]

    def run(self) -> None:
        """Run it, unless its caller has cancelled it; an error is the caller's."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.function()
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller
            self.future.set_exception(forget_frames(error))
        else:
            self.future.set_result(result)

    def refuse(self, error: Exception) -> None:
        """Fail it without running it."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


def refuse_all(inbox: SimpleQueue[Any], error: VLMError) -> None:
    """Take out all that was sent and fail it with ``error``; nobody may send anything more."""
    with contextlib.suppress(Empty):
        while True:
            message = inbox.get_nowait()
            if isinstance(message, Ticket):
                message.fail(error)
            elif isinstance(message, Call):
                message.refuse(copy.copy(error))


class Waiting:
    """Tickets in the order in which they are admitted: interactive ones before batch ones."""

    def __init__(self) -> None:
        self._interactive: deque[Ticket] = deque()
        self._batch: deque[Ticket] = deque()

    def __bool__(self) -> bool:
        return bool(self._interactive or self._batch)

    def add(self, ticket: Ticket) -> None:
        """Put a ticket behind those of its kind."""
        (self._interactive if ticket.request.interactive else self._batch).append(ticket)

    def take(self, room: int) -> list[Ticket]:
        """Take out the next ``room`` tickets, or all if there are fewer."""
        taken: list[Ticket] = []
        for queue in (self._interactive, self._batch):
            while queue and len(taken) < room:
                taken.append(queue.popleft())
        return taken

    def take_cancelled(self) -> list[Ticket]:
        """Take out the tickets whose callers have cancelled them."""
        taken: list[Ticket] = []
        for queue in (self._interactive, self._batch):
            cancelled = [ticket for ticket in queue if ticket.cancelled]
            for ticket in cancelled:
                queue.remove(ticket)
            taken += cancelled
        return taken

    def clear(self) -> None:
        """Forget all of them."""
        self._interactive.clear()
        self._batch.clear()
