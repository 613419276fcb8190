"""The engine: one daemon thread that owns a model, and the inbox through which everybody else talks to it.

Callers hold tickets; they never touch the model. The thread never prints, displays, sends comms or writes the
ledger. What an engine is made of is imported from here: contracts, tickets, the gate, and the two helpers.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar

from ..errors import ModelUnloaded, VLMError
from ..request import Request
from .contracts import Backend, Capabilities, MemoryReport, ModelInfo, Progress
from .faults import as_vlm_error, forget_frames, raise_if_cancelled
from .gate import MODEL_GATE, ModelGate
from .inbox import Call, Waiting, refuse_all
from .pulling import generate, stream
from .tickets import GRACE_SECONDS, POLL_SECONDS, Event, Outbox, Ticket, wait_cancelled

__all__ = [
    "GRACE_SECONDS",
    "MODEL_GATE",
    "POLL_SECONDS",
    "Backend",
    "Capabilities",
    "Engine",
    "Event",
    "MemoryReport",
    "ModelGate",
    "ModelInfo",
    "Outbox",
    "Progress",
    "Ticket",
    "as_vlm_error",
    "forget_frames",
    "generate",
    "raise_if_cancelled",
    "stream",
    "wait_cancelled",
]

log = logging.getLogger("vlm_nb")
EXIT_SECONDS = 5.0
T = TypeVar("T")


_CLOSE = object()


class Engine:
    """A thread around a backend. ``name`` is the engine's registered name ("transformers", "openai", …)."""

    def __init__(self, backend: Backend, name: str) -> None:
        self.name = name
        self.info: ModelInfo | None = None
        self._backend = backend
        self._inbox: SimpleQueue[Ticket | Call | object] = SimpleQueue()
        self._waiting = Waiting()
        self._open_tickets: weakref.WeakSet[Ticket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closing = False
        self._loading: threading.Event | None = None
        self._gone: VLMError = ModelUnloaded("the model was unloaded before this request was answered.")
        self._thread = threading.Thread(target=self._run, name=f"vlm_nb-{name}", daemon=True)
        self._thread.start()
        _ENGINES.add(self)

    # Called from any thread ---------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do with its model."""
        return self._backend.capabilities

    @property
    def slots(self) -> int:
        """How many requests it answers at once."""
        return self._backend.slots

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called, or the thread ended by itself."""
        return self._closing

    @property
    def backend(self) -> Backend:
        """What it drives, for what one kind only can do; its methods belong to this engine's thread."""
        return self._backend

    @property
    def memory(self) -> MemoryReport | None:
        """The device's memory before, with and after the model, where the backend measures it."""
        return getattr(self._backend, "memory_report", None)

    def prepare(
        self, progress: Callable[[Progress], None], cancelled: threading.Event, room: Mapping[str, int]
    ) -> Future[None]:
        """Run ``Backend.prepare`` on the engine's thread; ``load`` goes on from there."""
        self._loading = cancelled
        return self.call(lambda: self._backend.prepare(progress, cancelled, room))

    def load(self, progress: Callable[[Progress], None], cancelled: threading.Event) -> Future[ModelInfo]:
        """Open the backend on the engine's thread, which also calls ``progress``; ``close`` cancels."""
        self._loading = cancelled

        def open_() -> ModelInfo:
            self.info = self._backend.open(progress, cancelled)
            return self.info

        return self.call(open_)

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run ``function`` on the engine's thread between two steps."""
        future: Future[T] = Future()
        self._send(Call(function, future))
        return future

    def submit(self, request: Request, outbox: Outbox | None = None) -> Ticket:
        """Queue ``request``; interactive ones go before batch ones. Raises ModelUnloaded after ``close``."""
        ticket = Ticket(request, outbox)
        self._send(ticket)
        return ticket

    def close(self, timeout: float = 30.0) -> bool:
        """Fail open tickets with ModelUnloaded, free the backend and end the thread. Twice is fine.

        A load under way is cancelled. Returns whether the thread ended within ``timeout`` seconds.
        """
        with self._lock:
            first, self._closing = not self._closing, True
            waiting = list(self._open_tickets)
            if first:
                self._inbox.put(_CLOSE)
        for ticket in waiting:
            ticket.abandon(self._gone)
        if self._loading is not None:
            self._loading.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _send(self, message: Ticket | Call) -> None:
        with self._lock:
            if self._closing:
                raise self._closed_error()
            if isinstance(message, Ticket):
                self._open_tickets.add(message)
            self._inbox.put(message)

    def _closed_error(self) -> VLMError:
        if not isinstance(self._gone, ModelUnloaded):
            return copy.copy(self._gone)
        return ModelUnloaded("this model was unloaded; load it again with %vlm load or vlm_nb.load(...).")

    # The engine's thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with self._backend.context():
                while self._drain():
                    self._drop_cancelled()
                    self._admit()
                    self._step()
        except Exception as error:  # a broken backend; whoever asks next is told
            log.debug("engine %s stopped", self.name, exc_info=True)
            self._gone = as_vlm_error(error)
        finally:
            self._shut()

    def _drain(self) -> bool:
        """Take all messages in; wait for one when there is nothing to do. False ends the loop."""
        idle = not (self._waiting or self._backend.running)
        while True:
            try:
                message = self._inbox.get(block=idle)
            except Empty:
                return True
            if message is _CLOSE:
                return False
            if isinstance(message, Call):
                message.run()
            elif isinstance(message, Ticket):
                self._waiting.add(message)
                idle = False
            del message  # while the thread waits it must keep no request alive

    def _drop_cancelled(self) -> None:
        for ticket in self._waiting.take_cancelled():
            ticket.finish_cancelled()
        for ticket in [t for t in self._backend.running if t.cancelled]:
            self._backend.drop(ticket)
            ticket.finish_cancelled()

    def _admit(self) -> None:
        taken = self._waiting.take(self._backend.free_slots())
        if taken:
            self._guard(lambda: self._backend.admit(taken), taken)

    def _step(self) -> None:
        running = list(self._backend.running)
        if running:
            self._guard(self._backend.step, running)

    def _guard(self, action: Callable[[], None], tickets: list[Ticket]) -> None:
        """Run ``action``; an error that the backend did not handle fails the tickets it was working on."""
        try:
            action()
        except Exception as error:  # the thread must survive; the error goes to the callers
            log.debug("engine %s failed", self.name, exc_info=True)
            ours = as_vlm_error(error)
            for ticket in tickets:
                with contextlib.suppress(Exception):
                    self._backend.drop(ticket)
                ticket.fail(ours)

    def _shut(self) -> None:
        with self._lock:
            self._closing = True  # nothing is sent after this, so what is in the inbox now is all there is
            left = [ticket for ticket in self._open_tickets if not ticket.done]
        for ticket in left:
            ticket.fail(self._gone)
        self._waiting.clear()
        refuse_all(self._inbox, self._gone)
        try:
            self._backend.close()
        except Exception:  # nobody is left to tell
            log.warning("engine %s: the model could not be freed cleanly", self.name, exc_info=True)


_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    engines = list(_ENGINES)
    for engine in engines:
        engine.close(timeout=0)
    deadline = time.monotonic() + EXIT_SECONDS
    for engine in engines:
        engine.close(timeout=max(0.0, deadline - time.monotonic()))
