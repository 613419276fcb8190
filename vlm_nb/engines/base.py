"""The engine's side of every request: tickets, the thread that owns a model, and two helpers over them.

One daemon thread per engine owns model, caches and device. Callers hold tickets; they never touch the model.
The thread never prints, displays, sends comms or writes the ledger.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from ..errors import Cancelled, GenerationError, ModelUnloaded, VLMError
from ..request import Completion, Request, Usage

log = logging.getLogger("vlm_nb")
POLL_SECONDS = 0.05
GRACE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine with its model can do; checked before a request runs."""

    streaming: bool = True
    schema: bool = False
    multi_image: bool = True
    chat: bool = True
    confidence: bool = False
    sampling: bool = True
    beams: bool = False
    in_flight: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a load is: ``done`` and ``total`` in bytes (total None while unknown), ``text`` what happens."""

    text: str
    done: float = 0.0
    total: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What front ends need to know about a loaded model. ``memory`` is in bytes, None where it is not ours.

    ``fingerprint`` identifies the weights (hub revision, or a hash of the files' names, sizes and times);
    ``details`` are further plain values for ``%vlm status``.
    """

    name: str
    model_type: str | None = None
    device: str = "cpu"
    dtype: str | None = None
    quantization: str | None = None
    revision: str | None = None
    fingerprint: str | None = None
    memory: int | None = None
    context_length: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    patch: int | None = None
    image_size: tuple[int, int] | None = None
    chat_template: str | None = None
    generation_defaults: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


class Ticket:
    """One request under way. Callers read ``events`` or ``result`` and may ``cancel``; the engine pushes.

    With an ``outbox`` the events of many tickets arrive in one queue as ``(ticket, event)``.
    """

    def __init__(self, request: Request, outbox: SimpleQueue[tuple[Ticket, str | Completion]] | None = None) -> None:
        self.request = request
        self.submitted = time.perf_counter()
        self.text = ""
        self.completion: Completion | None = None
        self._outbox: SimpleQueue[tuple[Ticket, str | Completion]] = outbox or SimpleQueue()
        self._cancelled = threading.Event()
        self._done = threading.Event()

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

    def events(self) -> Iterator[str | Completion]:
        """Yield text deltas as they arrive, and last the completion. Waits with a short timeout, so Ctrl+C works."""
        while True:
            with contextlib.suppress(Empty):
                _, event = self._outbox.get(timeout=POLL_SECONDS)
                yield event
                if isinstance(event, Completion):
                    return

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
            self._outbox.put((self, delta))

    def finish(self, completion: Completion) -> None:
        """End the ticket; a second call does nothing."""
        if not self.done:
            self.completion = completion
            self._done.set()
            self._outbox.put((self, completion))

    def fail(self, error: VLMError, *, reason: str = "error") -> None:
        """End the ticket with ``error`` and the text so far."""
        usage = Usage(finish_reason="cancelled" if reason == "cancelled" else "error", seconds=self.seconds)
        self.finish(Completion(text=self.text, usage=usage, error=error))

    def finish_cancelled(self) -> None:
        """End the ticket with the partial text and ``finish_reason="cancelled"``."""
        self.finish(Completion(text=self.text, usage=Usage(finish_reason="cancelled", seconds=self.seconds)))

    @property
    def seconds(self) -> float:
        """Wall time since the ticket was made."""
        return time.perf_counter() - self.submitted


class Backend(Protocol):
    """What an engine's thread drives. Every method is called on that thread only, inside ``context()``."""

    capabilities: Capabilities

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Thread-wide state, such as ``torch.inference_mode()``."""

    def open(self, progress: Callable[[Progress], None], cancelled: threading.Event) -> ModelInfo:
        """Load the model; raise a LoadError or Cancelled."""

    @property
    def slots(self) -> int:
        """How many requests can be answered at once."""

    @property
    def running(self) -> Collection[Ticket]:
        """The admitted, unfinished tickets."""

    def free_slots(self) -> int:
        """How many tickets may be admitted now."""

    def admit(self, tickets: list[Ticket]) -> None:
        """Take tickets in; one that cannot be answered is failed by itself."""

    def step(self) -> None:
        """Advance all running tickets, push their deltas, finish those that are complete."""

    def drop(self, ticket: Ticket) -> None:
        """Forget a running ticket (cancelled); its completion is sent by the engine."""

    def close(self) -> None:
        """Free everything."""


@dataclass(slots=True)
class _Call:
    """A function to run on the engine's thread."""

    function: Callable[[], Any]
    future: Future[Any]


_CLOSE = object()


class Engine:
    """A thread around a backend. ``name`` is the engine's registered name ("transformers", "openai", …)."""

    def __init__(self, backend: Backend, name: str) -> None:
        self.name = name
        self.info: ModelInfo | None = None
        self._backend = backend
        self._inbox: SimpleQueue[Ticket | _Call | object] = SimpleQueue()
        self._interactive: deque[Ticket] = deque()
        self._batch: deque[Ticket] = deque()
        self._open_tickets: weakref.WeakSet[Ticket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closing = False
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
        """Whether ``close`` was called."""
        return self._closing

    def load(self, progress: Callable[[Progress], None], cancelled: threading.Event) -> Future[ModelInfo]:
        """Open the backend on the engine's thread. ``progress`` is called on that thread."""

        def open_() -> ModelInfo:
            self.info = self._backend.open(progress, cancelled)
            return self.info

        return self.call(open_)

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Run ``function`` on the engine's thread between two steps."""
        future: Future[Any] = Future()
        self._send(_Call(function, future))
        return future

    def submit(
        self, request: Request, outbox: SimpleQueue[tuple[Ticket, str | Completion]] | None = None
    ) -> Ticket:
        """Queue ``request``; interactive ones go before batch ones. Raises ModelUnloaded after ``close``."""
        ticket = Ticket(request, outbox)
        with self._lock:
            self._open_tickets.add(ticket)
        self._send(ticket)
        return ticket

    def close(self, timeout: float = 30.0) -> bool:
        """Fail open tickets with ModelUnloaded, free the backend and end the thread. Twice is fine.

        Returns whether the thread ended within ``timeout`` seconds.
        """
        with self._lock:
            first, self._closing = not self._closing, True
            waiting = list(self._open_tickets)
        for ticket in waiting:
            ticket.cancel()
        if first:
            self._inbox.put(_CLOSE)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _send(self, message: Ticket | _Call) -> None:
        with self._lock:
            if self._closing:
                raise ModelUnloaded("this model was unloaded; load it again with %vlm load or vlm_nb.load(...).")
            self._inbox.put(message)

    # The engine's thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with self._backend.context():
                while self._drain():
                    self._drop_cancelled()
                    self._admit()
                    self._step()
        finally:
            self._shut()

    def _drain(self) -> bool:
        """Take all messages in; wait for one when there is nothing to do. False ends the loop."""
        idle = not (self._interactive or self._batch or self._backend.running)
        while True:
            try:
                message = self._inbox.get(block=idle)
            except Empty:
                return True
            if message is _CLOSE:
                return False
            if isinstance(message, _Call):
                _answer(message)
            elif isinstance(message, Ticket):
                (self._interactive if message.request.interactive else self._batch).append(message)
                idle = False
            del message

    def _drop_cancelled(self) -> None:
        for queue in (self._interactive, self._batch):
            for ticket in [t for t in queue if t.cancelled]:
                queue.remove(ticket)
                ticket.finish_cancelled()
        for ticket in [t for t in self._backend.running if t.cancelled]:
            self._backend.drop(ticket)
            ticket.finish_cancelled()

    def _admit(self) -> None:
        room = self._backend.free_slots()
        taken: list[Ticket] = []
        for queue in (self._interactive, self._batch):
            while queue and len(taken) < room:
                taken.append(queue.popleft())
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
        except Exception as error:  # noqa: BLE001 - the thread must survive; the error goes to the callers
            log.debug("engine %s failed", self.name, exc_info=True)
            for ticket in tickets:
                with contextlib.suppress(Exception):
                    self._backend.drop(ticket)
                ticket.fail(as_vlm_error(error))

    def _shut(self) -> None:
        self._closing = True
        gone = ModelUnloaded("the model was unloaded before this request was answered.")
        with self._lock:
            left = [t for t in self._open_tickets if not t.done]
        for ticket in left:
            ticket.fail(gone)
        self._interactive.clear()
        self._batch.clear()
        with contextlib.suppress(Exception):
            self._backend.close()
        while True:
            try:
                message = self._inbox.get_nowait()
            except Empty:
                return
            if isinstance(message, Ticket):
                message.fail(gone)
            elif isinstance(message, _Call):
                message.future.set_exception(gone)


def _answer(call: _Call) -> None:
    try:
        call.future.set_result(call.function())
    except BaseException as error:  # noqa: BLE001 - it belongs to the caller
        error.__traceback__ = None  # frames would keep tensors alive
        call.future.set_exception(error)


def as_vlm_error(error: BaseException) -> VLMError:
    """Return ``error`` as one of ours, without the traceback whose frames would keep tensors alive."""
    error.__traceback__ = None
    if isinstance(error, VLMError):
        return error
    return GenerationError(f"the engine failed: {type(error).__name__}: {error}")


_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for engine in list(_ENGINES):
        engine.close(timeout=5.0)


# Helpers that work with every engine ------------------------------------------------------------------------


def stream(engine: Engine, request: Request) -> Iterator[str | Completion]:
    """Yield text deltas and last the completion; leaving the iterator early cancels the request."""
    ticket = engine.submit(request)
    try:
        yield from ticket.events()
    finally:
        ticket.cancel()


def generate(
    engine: Engine, requests: Iterable[Request], *, window: int | None = None
) -> Iterator[tuple[int, Completion]]:
    """Answer ``requests``, pulled lazily in the caller's thread; yield ``(index, completion)`` as they finish.

    At most ``window`` (2 × the engine's slots) are in flight. Leaving early, an interrupt, or an error in
    ``requests`` cancels what is outstanding.
    """
    limit = window or 2 * engine.slots
    outbox: SimpleQueue[tuple[Ticket, str | Completion]] = SimpleQueue()
    open_: dict[Ticket, int] = {}
    source = enumerate(requests)
    try:
        exhausted = False
        while open_ or not exhausted:
            while not exhausted and len(open_) < limit:
                item = next(source, None)
                if item is None:
                    exhausted = True
                else:
                    open_[engine.submit(item[1], outbox)] = item[0]
            yield from _finished(outbox, open_)
    finally:
        for ticket in open_:
            ticket.cancel()


def _finished(
    outbox: SimpleQueue[tuple[Ticket, str | Completion]], open_: dict[Ticket, int]
) -> Iterator[tuple[int, Completion]]:
    if not open_:
        return
    with contextlib.suppress(Empty):
        ticket, event = outbox.get(timeout=POLL_SECONDS)
        if isinstance(event, Completion):
            yield open_.pop(ticket), event


def wait_cancelled(tickets: Iterable[Ticket], grace: float = GRACE_SECONDS) -> None:
    """Cancel ``tickets`` and wait up to ``grace`` seconds for their partial answers."""
    tickets = list(tickets)
    for ticket in tickets:
        ticket.cancel()
    deadline = time.monotonic() + grace
    for ticket in tickets:
        with contextlib.suppress(TimeoutError):
            ticket.result(timeout=max(0.0, deadline - time.monotonic()))


def raise_if_cancelled(cancelled: threading.Event) -> None:
    """Raise Cancelled once ``cancelled`` is set."""
    if cancelled.is_set():
        raise Cancelled("loading was cancelled.")
