"""What a run's worker threads do with a row: look it up, decode, prepare; an error stays the row's own."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from ..asking import Asker, Prepared
from ..engines.base import forget_frames
from ..errors import SourceError, VLMError
from ..results import Prediction
from .book import Book, Row


@dataclass(frozen=True, slots=True)
class Found:
    """A worker's word on a row: an answer that was known, a prepared request, or an error."""

    row: Row
    found: Prediction | Prepared | VLMError | None


class Preparer:
    """Puts lists of ``Found`` into ``inbox`` until ``stopped`` is set. Its methods run in any thread."""

    def __init__(self, asker: Asker, book: Book, inbox: SimpleQueue[Any], stopped: threading.Event) -> None:
        self._asker = asker
        self._book = book
        self._inbox = inbox
        self._stopped = stopped

    def prepare_all(self, rows: list[Row]) -> None:
        """Report known answers together, at most a chunk; everything else at once."""
        found: list[Found] = []
        for row in rows:
            if self._stopped.is_set():
                return
            found.append(Found(row, self._prepare(row)))
            if not isinstance(found[-1].found, Prediction):
                self._inbox.put(found)
                found = []
        if found:
            self._inbox.put(found)

    def _prepare(self, row: Row) -> Prediction | Prepared | VLMError | None:
        """Find the answer, or decode and prepare; None where an equal row is being computed already."""
        try:
            job, contents = row.job, None
            if not job.generation.sampling and (contents := self._book.known(job)) is not None:
                row.key = self._book.key(job, contents)
                if (found := self._book.find(job, row.key, row.position)) is not None:
                    return found
            loaded, read = self._book.load(job)
            if read != contents:
                row.key = self._book.key(job, read)
                if (found := self._book.find(job, row.key, row.position)) is not None:
                    return found
            claim = self._book.claim(row)
            if claim is not True:
                return claim or None
            prepared = self._asker.prepare(loaded)
            return dataclasses.replace(prepared, first=None)  # a table has no previews: let the original go
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this row's
            return own_error(error)


def own_error(error: Exception) -> VLMError:
    """Return ``error`` as one of ours, without the frames that would keep images alive."""
    forget_frames(error)
    if isinstance(error, VLMError):
        return error
    return SourceError(f"this row could not be read: {type(error).__name__}: {error}")
