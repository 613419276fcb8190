"""Two helpers that work with every engine: one request as a stream, many requests as they finish."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from ..request import Completion, Request
from .tickets import POLL_SECONDS, Event, Outbox, Ticket, wait_cancelled

if TYPE_CHECKING:
    from .base import Engine


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
