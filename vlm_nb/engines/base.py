"""The engine's side of every request: tickets, the thread that owns a model, and two helpers over them.

One daemon thread per engine owns model, caches and device. Callers hold tickets; they never touch the model.
The thread never prints, displays, sends comms or writes the ledger.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeAlias, TypeVar

from ..errors import Cancelled, GenerationError, ModelUnloaded, VLMError
from ..request import Completion, Request, Usage

log = logging.getLogger("vlm_nb")
POLL_SECONDS = 0.05
GRACE_SECONDS = 1.0
EXIT_SECONDS = 5.0
T = TypeVar("T")
E = TypeVar("E", bound=BaseException)


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
    """How far a load is: ``done``, ``total`` in bytes (total None while unknown), ``text`` what happens."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReport:
    """Bytes in use on the model's device before loading, after it, and after unloading (None: not yet)."""

    device: str
    before: int | None = None
    loaded: int | None = None
    after: int | None = None


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
    def memory(self) -> MemoryReport | None:
        """The device's memory before, with and after the model, where the backend measures it."""
        return getattr(self._backend, "memory_report", None)

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
        self._send(_Call(function, future))
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

    def _send(self, message: Ticket | _Call) -> None:
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
            del message  # while the thread waits it must keep no request alive

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
        self._interactive.clear()
        self._batch.clear()
        self._empty_inbox()
        try:
            self._backend.close()
        except Exception:  # nobody is left to tell
            log.warning("engine %s: the model could not be freed cleanly", self.name, exc_info=True)

    def _empty_inbox(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                message = self._inbox.get_nowait()
                if isinstance(message, Ticket):
                    message.fail(self._gone)
                elif isinstance(message, _Call) and message.future.set_running_or_notify_cancel():
                    message.future.set_exception(copy.copy(self._gone))


def _answer(call: _Call) -> None:
    if not call.future.set_running_or_notify_cancel():
        return
    try:
        result = call.function()
    except BaseException as error:  # noqa: BLE001 - it belongs to the caller
        call.future.set_exception(forget_frames(error))
    else:
        call.future.set_result(result)


def forget_frames(error: E) -> E:
    """Drop the tracebacks of ``error`` and of its causes: frames keep tensors and images alive."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def as_vlm_error(error: BaseException) -> VLMError:
    """Return ``error`` as one of ours, without the tracebacks whose frames would keep tensors alive."""
    forget_frames(error)
    if isinstance(error, VLMError):
        return error
    return GenerationError(f"the engine failed: {type(error).__name__}: {error}")


_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    engines = list(_ENGINES)
    for engine in engines:
        engine.close(timeout=0)
    deadline = time.monotonic() + EXIT_SECONDS
    for engine in engines:
        engine.close(timeout=max(0.0, deadline - time.monotonic()))


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


# Helpers that work with every engine ------------------------------------------------------------------------


def stream(engine: Engine, request: Request) -> Iterator[Event]:
    """Yield text deltas and last the completion; leaving the iterator early cancels the request.

    An interrupt while waiting cancels, yields what still arrives within a second (the completion with its
    partial text included) and then goes on to the caller.
    """
    ticket = engine.submit(request)
    try:
        yield from ticket.events()
    except KeyboardInterrupt:
        wait_cancelled([ticket])
        if ticket.done:
            yield from ticket.events()
        raise
    finally:
        ticket.cancel()


def generate(
    engine: Engine, requests: Iterable[Request], *, window: int | None = None
) -> Iterator[tuple[int, Completion]]:
    """Answer ``requests``, pulled lazily in the caller's thread; yield ``(index, completion)`` as they end.

    At most ``window`` (2 × the engine's slots) are in flight. Leaving early, or an error in ``requests``,
    cancels what is outstanding. An interrupt while waiting cancels too, yields what is answered within a
    second (the cancelled ones with their partial texts) and then goes on to the caller.
    """
    outbox: Outbox = SimpleQueue()
    open_: dict[Ticket, int] = {}
    try:
        yield from _pump(engine, enumerate(requests), window or 2 * engine.slots, outbox, open_)
    except KeyboardInterrupt:
        wait_cancelled(open_)
        while not outbox.empty():
            yield from _finished(outbox, open_)
        raise
    finally:
        for ticket in open_:
            ticket.cancel()


def _pump(
    engine: Engine,
    source: Iterator[tuple[int, Request]],
    limit: int,
    outbox: Outbox,
    open_: dict[Ticket, int],
) -> Iterator[tuple[int, Completion]]:
    exhausted = False
    while open_ or not exhausted:
        while not exhausted and len(open_) < limit:
            item = next(source, None)
            if item is None:
                exhausted = True
            else:
                open_[engine.submit(item[1], outbox)] = item[0]
            del item
        yield from _finished(outbox, open_)


def _finished(outbox: Outbox, open_: dict[Ticket, int]) -> Iterator[tuple[int, Completion]]:
    if not open_:
        return
    with contextlib.suppress(Empty):
        ticket, event = outbox.get(timeout=POLL_SECONDS)
        index = open_.pop(ticket, None) if isinstance(event, Completion) else None
        del ticket
        if index is not None and isinstance(event, Completion):
            yield index, event


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
