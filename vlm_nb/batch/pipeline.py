"""The run itself: pull rows → (worker threads) look up, decode, prepare → engine → finish, in any order.

Only the caller's thread pulls, submits, writes and yields. Everything on its way is bounded: rows pulled but
not finished, prepared images in number and bytes, and requests in the engine (2 × its slots).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import time
from collections import deque
from collections.abc import Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

from ..asking import Job, Prepared
from ..engines.base import GRACE_SECONDS, POLL_SECONDS, Ticket, forget_frames
from ..errors import Cancelled, MissingDependency, ModelUnloaded, VLMError
from ..request import Completion
from ..results import Outcome
from .book import Book, Row
from .counts import Counts
from .identity import Answerer
from .preparing import Found, Preparer, own_error
from .ready import ReadyRow, ReadyRows
from .workers import Workers

OPEN_ROWS = 1024
AHEAD_ROWS = 128
AHEAD_BYTES = 256 << 20
KNOWN_ROWS = 512
"""So many rows in a row that were known already, and as many are looked up ahead."""
_CHUNK = 64
_DOWNLOADS = 16


class Pipeline:
    """One run. Iterate over it once; ``halt`` and ``close`` end it early. Raises MissingDependency."""

    def __init__(
        self, answerer: Answerer, jobs: Iterable[Job | VLMError], book: Book, counts: Counts
    ) -> None:
        self.counts = counts
        self.pulled = 0
        self._answerer = answerer
        self._jobs = iter(jobs)
        self._book = book
        self._workers = Workers()
        self._fetchers = Workers(_DOWNLOADS)
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self._preparer = Preparer(answerer.asker, book, self._inbox, self._workers.stopped)
        self._ready = ReadyRows()
        self._tickets: dict[Ticket, ReadyRow] = {}
        self._done: deque[tuple[int, Outcome]] = deque()
        self._gone: VLMError | None = None
        self._exhausted = False
        self._open = 0  # pulled, not finished
        self._preparing = 0  # of these, with the workers
        self._streak = 0  # rows found in a row: they are looked up in larger chunks

    def __iter__(self) -> Iterator[tuple[int, Outcome]]:
        while True:
            self._pull()
            self._submit()
            while self._done:
                yield self._done.popleft()  # one by one, so that an interrupt loses none
            if self._exhausted and not self._open:
                return
            self._collect()

    def halt(self, grace: float = GRACE_SECONDS) -> list[tuple[int, Outcome]]:
        """Cancel what is under way, wait up to ``grace`` seconds for it, and return what was finished."""
        self._stop_workers()
        self._exhausted = True
        for ticket in self._tickets:
            ticket.cancel()
        deadline = time.monotonic() + grace
        while self._tickets and time.monotonic() < deadline:
            self._collect()
        done, self._done = self._done, deque()
        return list(done)

    def close(self) -> None:
        """Cancel what is under way and end the threads. Twice is fine."""
        self._stop_workers()
        for ticket in self._tickets:
            ticket.cancel()
        self._tickets.clear()

    def _stop_workers(self) -> None:
        self.counts.stopped |= self._open > 0 or not self._exhausted
        self._workers.stop()
        self._fetchers.stop()

    # Pull ---------------------------------------------------------------------------------------------------

    def _pull(self) -> None:
        while not self._exhausted and self._has_room():
            chunk = self._next_chunk(min(_CHUNK, 1 + self._streak // 8))
            self._preparing += len(chunk)
            remote = [row for row in chunk if any(source.kind == "url" for source in row.job.sources)]
            local = [row for row in chunk if row not in remote] if remote else chunk
            for row in remote:
                self._fetchers.add(functools.partial(self._preparer.prepare_all, [row]))
            if local:
                self._workers.add(functools.partial(self._preparer.prepare_all, local))

    def _has_room(self) -> bool:
        ahead = self._preparing + len(self._ready)
        known = KNOWN_ROWS if self._streak >= KNOWN_ROWS else 0
        limit = max(AHEAD_ROWS, known, 4 * self._answerer.engine.slots)
        few = self._open < OPEN_ROWS and len(self._done) < OPEN_ROWS and ahead < limit
        return few and self._ready.row_bytes * ahead < AHEAD_BYTES

    def _next_chunk(self, size: int) -> list[Row]:
        chunk: list[Row] = []
        while len(chunk) < size:
            job = next(self._jobs, None)
            if job is None:
                self._exhausted = True
                break
            position, self.pulled, self._open = self.pulled, self.pulled + 1, self._open + 1
            if isinstance(job, VLMError):
                self._finish(Row(position, Job(sources=(), prompt="")), Outcome(None, job))
            elif self._gone is not None:
                self._finish(Row(position, job), Outcome(None, copy.copy(self._gone)))
            else:
                chunk.append(Row(position, job))
        return chunk

    # Submit -------------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        slots = max(1, self._answerer.engine.slots)
        while self._ready and len(self._tickets) <= slots and self._due(slots):
            for ready in self._ready.take(slots):
                self._submit_one(ready)

    def _due(self, slots: int) -> bool:
        """Whether to go now, or to wait for more rows of a size."""
        return len(self._ready) >= slots or not self._preparing or self._ready.impatient

    def _submit_one(self, ready: ReadyRow) -> None:
        try:
            if self._gone is not None:
                raise copy.copy(self._gone)
            request = dataclasses.replace(ready.prepared.request, interactive=False)
            self._tickets[self._answerer.engine.submit(request, self._inbox)] = ready
        except VLMError as error:
            self._finish(ready.row, Outcome(None, error))

    # Collect ------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Take in what happened; wait a moment where nothing did."""
        try:
            event = self._inbox.get(timeout=POLL_SECONDS)
            while True:
                self._take(event)
                event = self._inbox.get_nowait()
        except Empty:
            self._book.tick()

    def _take(self, event: Any) -> None:
        if isinstance(event, list):
            self._preparing -= len(event)
            for found in event:
                self._take_found(found)
        elif isinstance(event[1], Completion) and event[0] in self._tickets:
            self._answered(self._tickets.pop(event[0]), event[1])

    def _take_found(self, event: Found) -> None:
        row, found = event.row, event.found
        if isinstance(found, Prepared):
            self._streak = 0
            self._ready.add(ReadyRow.of(row, found))
        elif isinstance(found, VLMError):
            self._finish(row, Outcome(None, found))
        elif found is not None:
            self._streak += 1
            self.counts.hits += 1
            self._finish(row, Outcome(found, None), known=True)

    def _answered(self, ready: ReadyRow, completion: Completion) -> None:
        try:
            if completion.error is None and completion.usage.finish_reason == "cancelled":
                raise Cancelled("stopped before it was answered; run the same call again to go on.")
            result = self._answerer.asker.predict(ready.row.job, ready.prepared, completion)
            self._finish(ready.row, Outcome(result, None))
        except Exception as error:  # noqa: BLE001 - a row that cannot be read costs no other
            self._finish(ready.row, Outcome(None, own_error(error)))

    def _finish(self, row: Row, outcome: Outcome, *, known: bool = False) -> None:
        if isinstance(outcome.error, MissingDependency):
            raise outcome.error  # no row can do without it
        if isinstance(outcome.error, ModelUnloaded):
            self._gone = outcome.error
        followers = self._book.finished(row, outcome, known=known)
        self._hold(row, outcome)
        for follower in followers:
            self.counts.hits += outcome.error is None
            self._hold(follower, _for_another(outcome, row.job))

    def _hold(self, row: Row, outcome: Outcome) -> None:
        """Count and keep one finished row until it is handed out."""
        self._open -= 1
        self.counts.add(outcome)
        label = row.job.label
        result, error = outcome
        if result is not None and (result.index != row.position or result.source != label):
            outcome = Outcome(dataclasses.replace(result, source=label, index=row.position), None)
        elif error is not None:
            forget_frames(error)
            error.source, error.index = error.source or label, row.position
        self._book.append(row, outcome)
        self._done.append((row.position, outcome))


def _for_another(outcome: Outcome, of: Job) -> Outcome:
    """The outcome of a row for one with the same content: its errors must not name the other's file."""
    if outcome.error is None:
        return outcome
    error = copy.copy(outcome.error)
    error.source = None
    if of.label:
        error.args = (error.message.removeprefix(f"{of.label}: "),)
    return Outcome(None, error)
