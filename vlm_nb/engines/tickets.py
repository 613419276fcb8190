"""Tickets: one request under way, seen by the caller who waits for it and by the engine that answers it."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import TypeAlias

from ..errors import VLMError
from ..request import Completion, Request, Usage

POLL_SECONDS = 0.05
GRACE_SECONDS = 1.0
Event: TypeAlias = str | Completion
Outbox: TypeAlias = "SimpleQueue[tuple[Ticket, Event]]"


class Ticket:
    """One request under way. Callers read ``events`` or ``result`` and may ``cancel``; the engine pushes.

    With an ``outbox`` the events of many tickets arrive in that queue as ``(ticket, event)``, and ``events``
    has none of them.
    """

    def __init__(self, request: Request, outbox: Outbox | None = None) -> None:
        self.request = request
        self.submitted = time.perf_counter()
        self.text = ""
        self.completion: Completion | None = None
        self._shared = outbox
        self._own: SimpleQueue[Event] = SimpleQueue()
        self._cancelled = threading.Event()
        self._done = threading.Event()
        self._verdict: VLMError | None = None

    @property
    def cancelled(self) -> bool:
        """Whether the caller asked to cancel."""
        return self._cancelled.is_set()

    @property
    def done(self) -> bool:
        """Whether the completion is there."""
        return self._done.is_set()

    def cancel(self) -> None:
        """Ask the engine to stop; the partial text arrives as the completion. Safe at any time."""
        self._cancelled.set()

    def abandon(self, error: VLMError) -> None:
        """Ask the engine to stop, and to end the ticket with ``error`` and the partial text."""
        self._verdict = self._verdict or error
        self._cancelled.set()

    def events(self) -> Iterator[Event]:
        """Yield text deltas as they arrive, and last the completion.

        Waits with a short timeout, so that Ctrl+C works. A second reader of an answered ticket gets the
        completion only.
        """
        while True:
            event = self._next_event()
            if event is not None:
                yield event
            if isinstance(event, Completion):
                return

    def _next_event(self) -> Event | None:
        answered = self.done  # asked before the queue: everything was put before the ticket was done
        try:
            return self._own.get(timeout=0 if answered else POLL_SECONDS)
        except Empty:
            return self.completion if answered else None

    def result(self, timeout: float | None = None) -> Completion:
        """Wait for the completion; raises TimeoutError after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._done.wait(POLL_SECONDS):
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"no answer within {timeout} s")
        assert self.completion is not None  # noqa: S101 - set before the event
        return self.completion

    # The engine's side --------------------------------------------------------------------------------------

    def push(self, delta: str) -> None:
        """Append ``delta`` to the answer and tell the caller."""
        if delta and not self.done:
            self.text += delta
            self._put(delta)

    def finish(self, completion: Completion) -> None:
        """End the ticket; a second call does nothing."""
        if not self.done:
            self.completion = completion
            self._put(completion)
            self._done.set()

    def _put(self, event: Event) -> None:
        # The own queue holds no ticket: a cycle would keep the request's images until the next collection.
        if self._shared is None:
            self._own.put(event)
        else:
            self._shared.put((self, event))

    def fail(self, error: VLMError, *, reason: str = "error") -> None:
        """End the ticket with a copy of ``error`` (it will carry this input's name) and the text so far."""
        usage = Usage(finish_reason="cancelled" if reason == "cancelled" else "error", seconds=self.seconds)
        self.finish(Completion(text=self.text, usage=usage, error=copy.copy(error)))

    def finish_cancelled(self) -> None:
        """End the ticket with the partial text, as cancelled or with the error that ``abandon`` gave."""
        if self._verdict is not None:
            self.fail(self._verdict)
        else:
            usage = Usage(finish_reason="cancelled", seconds=self.seconds)
            self.finish(Completion(text=self.text, usage=usage))

    @property
    def seconds(self) -> float:
        """Wall time since the ticket was made."""
        return time.perf_counter() - self.submitted


def wait_cancelled(tickets: Iterable[Ticket], grace: float = GRACE_SECONDS) -> None:
    """Cancel ``tickets`` and wait up to ``grace`` seconds for their partial answers."""
    tickets = list(tickets)
    for ticket in tickets:
        ticket.cancel()
    deadline = time.monotonic() + grace
    for ticket in tickets:
        with contextlib.suppress(TimeoutError):
            ticket.result(timeout=max(0.0, deadline - time.monotonic()))
