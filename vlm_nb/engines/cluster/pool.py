"""The driver's side: which replicas are up, what each is answering, and what became of a dead one's rows.

Ray starts the replicas, restarts the dead, carries the requests and streams the answers back; each replica's
engine decides in which order it computes. Here a row goes to the replica with the fewest.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ...errors import GenerationError, VLMError
from ...request import Completion
from ..base import POLL_SECONDS, Event, Ticket, as_vlm_error
from ..spec import LoadSpec
from .failures import deaths, own_error, said
from .joining import imported
from .options import ClusterOptions, inner_spec
from .replica import Facts, Replica

PLACES = 128
"""Answers under way in one replica, at most: Ray keeps a thread for each."""
SPARE = 8
"""Threads for calls that must not wait for answers."""
TRIES = 3
"""A row whose replica died this often is the likely reason, and fails."""
CLOSE_SECONDS = 15.0


@dataclass(slots=True, eq=False)
class Row:
    """A ticket on its way. ``text`` is what its present try has answered, ``deaths`` how many went wrong."""

    ticket: Ticket
    number: int
    deaths: int = 0
    text: str = ""
    stream: Any = None


@dataclass(slots=True, eq=False)
class Worker:
    """A replica as seen from here. ``rising`` is what resolves when it is up; None once it is."""

    actor: Any
    rising: Any
    facts: Facts | None = None
    rows: list[Row] = field(default_factory=list)

    @property
    def places(self) -> int:
        """How many rows it takes at once."""
        return min(self.facts.slots, PLACES) if self.facts else 0

    @property
    def room(self) -> int:
        """How many it would take now."""
        return 0 if self.rising is not None else self.places - len(self.rows)


class Pool:
    """``options.replicas`` actors and the rows that they answer. Every method runs on the engine's thread."""

    def __init__(self, spec: LoadSpec, options: ClusterOptions) -> None:
        self._ray = imported()
        self._options = options
        self._spec = inner_spec(spec)
        self._numbers = itertools.count()
        self._waiting: deque[Row] = deque()
        self.gone: VLMError | None = None
        self.resting = False
        self.workers: list[Worker] = []

    def start(self) -> None:
        """Ask Ray for the replicas; they come up as there is room for them."""
        self.resting = False
        actor = self._ray.remote(Replica).options(
            max_concurrency=PLACES + SPARE,
            max_restarts=self._options.max_restarts,
            **self._options.resources,
        )
        actors = [actor.remote(self._spec) for _ in range(self._options.replicas)]
        self.workers = [Worker(one, _ready(one)) for one in actors]

    # Rows ---------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> list[Row]:
        """All rows that are not finished."""
        return [*self._waiting, *(row for worker in self.workers for row in worker.rows)]

    @property
    def places(self) -> int:
        """How many rows are answered at once when all replicas are up."""
        return max(1, sum(worker.places for worker in self.workers))

    def room(self) -> int:
        """How many more rows would be answered at once; where there are none, one: it calls for ``step``."""
        free = sum(worker.room for worker in self.workers) - len(self._waiting)
        return max(free, 0 if self.rows else 1)

    def add(self, ticket: Ticket) -> None:
        """Take a row in."""
        self._waiting.append(Row(ticket, next(self._numbers)))
        self._hand_out()

    def drop(self, ticket: Ticket) -> None:
        """Forget a row, and tell its replica."""
        self._waiting = deque(row for row in self._waiting if row.ticket is not ticket)
        for worker in self.workers:
            for row in [row for row in worker.rows if row.ticket is ticket]:
                self._forget(worker, row)

    def _forget(self, worker: Worker, row: Row) -> None:
        worker.rows.remove(row)
        worker.actor.cancel.remote(row.number)

    def step(self) -> None:
        """Wait a moment for answers and for replicas, and take in what has come."""
        streams = {row.stream: (worker, row) for worker in self.workers for row in worker.rows}
        rising = {worker.rising: worker for worker in self.workers if worker.rising is not None}
        for one in self._come([*streams, *rising]):
            if one in rising:
                self._risen(rising[one])
            elif streams[one][1] in streams[one][0].rows:  # its replica may have died a moment ago
                self._take(*streams[one])
        self._hand_out()

    def _come(self, awaited: list[Any]) -> list[Any]:
        if not awaited:
            time.sleep(POLL_SECONDS)
            return []
        come, rest = self._ray.wait(awaited, num_returns=1, timeout=POLL_SECONDS)
        if come and rest:
            come += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return list(come)

    def _hand_out(self) -> None:
        while self._waiting and (free := [worker for worker in self.workers if worker.room > 0]):
            self._send(self._waiting.popleft(), min(free, key=lambda worker: len(worker.rows)))
        while self._waiting and not self.workers and not self.resting:
            self._waiting.popleft().ticket.fail(self.gone or GenerationError("the replicas were stopped."))

    def _send(self, row: Row, worker: Worker) -> None:
        row.text, row.number = "", next(self._numbers)
        try:
            row.stream = worker.actor.answer.options(num_returns="streaming").remote(
                row.number, row.ticket.request
            )
        except Exception as error:  # noqa: BLE001 - a request that cannot be sent fails alone
            row.ticket.fail(as_vlm_error(error))
        else:
            worker.rows.append(row)

    def _take(self, worker: Worker, row: Row) -> None:
        try:
            for event in self._events(row):
                self._deliver(row, event)
                if isinstance(event, Completion):
                    worker.rows.remove(row)
                    return
        except deaths(self._ray) as error:
            self._lost(worker, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this row's
            self._forget(worker, row)
            row.ticket.fail(own_error(error))

    def _events(self, row: Row) -> Iterator[Event]:
        """What has come of one answer by now."""
        try:
            yield self._ray.get(next(row.stream))
            while self._ray.wait([row.stream], timeout=0)[0]:
                yield self._ray.get(next(row.stream))
        except StopIteration:
            raise GenerationError("the replica ended the answer without its completion.") from None

    def _deliver(self, row: Row, event: Event) -> None:
        if isinstance(event, Completion):
            row.ticket.finish(event)
            return
        known, row.text = row.ticket.text, row.text + event
        if row.text.startswith(known):
            row.ticket.push(row.text[len(known) :])
        elif not known.startswith(row.text):
            raise GenerationError("the replica died, and the second try gave another answer.")

    # Replicas -----------------------------------------------------------------------------------------------

    def _risen(self, worker: Worker) -> None:
        try:
            found = self._ray.get(worker.rising)
        except self._ray.exceptions.RayError as error:
            found = own_error(error)
        if isinstance(found, Facts):
            worker.facts, worker.rising = found, None
        else:
            self.gone = found
            self.workers.remove(worker)
            self._kill(worker)

    def _lost(self, worker: Worker, error: Exception) -> None:
        """Give a dead replica's rows to the others, and wait for Ray to start it again."""
        rows, worker.rows = worker.rows, []
        worker.rising = _ready(worker.actor)
        for row in reversed(rows):
            row.deaths, row.stream = row.deaths + 1, None
            if row.deaths < TRIES:
                self._waiting.appendleft(row)
            else:
                row.ticket.fail(
                    GenerationError(f"{TRIES} replicas died while they answered it: {said(error)}")
                )

    def rest(self) -> None:
        """End the replicas until ``start``; rows that come meanwhile wait."""
        self.resting = True
        self.stop()

    def stop(self) -> None:
        """Free the models and end the replicas' processes."""
        workers, self.workers = self.workers, []
        if not self._ray.is_initialized():
            return
        closing = [worker.actor.close.remote() for worker in workers if worker.rising is None]
        with contextlib.suppress(Exception):  # what does not close in time is killed
            self._ray.wait(closing, num_returns=max(1, len(closing)), timeout=CLOSE_SECONDS)
        for worker in workers:
            self._kill(worker)

    def _kill(self, worker: Worker) -> None:
        with contextlib.suppress(Exception):
            self._ray.kill(worker.actor, no_restart=True)


def _ready(actor: Any) -> Any:
    """The reference that resolves once the replica is up, however often Ray must start it until then."""
    return actor.ready.options(max_task_retries=-1).remote()
