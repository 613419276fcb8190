"""What runs in a replica's process: one engine with the model, loaded once, and the way to its tickets."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from ...errors import VLMError
from ...request import Completion, Request
from ..base import Capabilities, Engine, Event, ModelInfo, Progress, Ticket
from ..spec import LoadSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a replica tells about itself once it has loaded."""

    info: ModelInfo
    capabilities: Capabilities
    slots: int
    pid: int


def opened(spec: LoadSpec) -> Engine:
    """Load ``spec`` on a new engine in this process. Raises a VLMError."""
    from .. import make_backend

    engine = Engine(make_backend(spec), spec.engine)
    try:
        engine.load(_ignore, threading.Event()).result()
    except BaseException:
        engine.close()
        raise
    return engine


def _ignore(progress: Progress) -> None:
    """A replica's progress is shown nowhere."""


class Replica:
    """The actor. Its constructor never raises: an error that Ray carried would lose its type."""

    def __init__(self, spec: LoadSpec) -> None:
        self._engine: Engine | None = None
        self._failed: VLMError | None = None
        self._tickets: dict[int, Ticket] = {}
        self._cancelled: set[int] = set()
        self._lock = threading.Lock()
        try:
            self._engine = opened(spec)
        except VLMError as error:
            self._failed = error

    def ready(self) -> Facts | VLMError:
        """Forget what is under way, whose caller has lost sight of it, and tell about the model."""
        with self._lock:
            for ticket in self._tickets.values():
                ticket.cancel()
        engine = self._engine
        if engine is None or engine.info is None:
            return self._failed or VLMError("the replica was closed.")
        return Facts(info=engine.info, capabilities=engine.capabilities, slots=engine.slots, pid=os.getpid())

    def answer(self, number: int, request: Request) -> Iterator[Event]:
        """Yield the answer's pieces (for an interactive request) and last its completion."""
        if self._engine is None:
            raise VLMError("the replica was closed.")
        ticket = self._engine.submit(request)
        with self._lock:
            self._tickets[number] = ticket
            if number in self._cancelled:
                ticket.cancel()
        try:
            for event in ticket.events():
                if request.interactive or isinstance(event, Completion):
                    yield event
        finally:
            ticket.cancel()
            with self._lock:
                self._tickets.pop(number, None)
                self._cancelled.discard(number)

    def cancel(self, number: int) -> None:
        """Stop an answer, also one whose request is still on its way here."""
        with self._lock:
            self._cancelled.add(number)
            ticket = self._tickets.get(number)
        if ticket is not None:
            ticket.cancel()

    def close(self) -> None:
        """Free the model, and with it the processes that its engine may have started."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
