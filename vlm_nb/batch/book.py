"""What a run knows already: answers from its ledger, its output file, and its own last rows."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from .. import config
from ..asking import Job
from ..errors import LedgerError
from ..ledger.stamps import identified
from ..ledger.store import Ledger
from ..results import Outcome, Prediction
from ..sources import Source, content_key, fetch
from .identity import Answerer, Keys, model_identity
from .options import RunOptions
from .output import Line, OutputFile, plain_line
from .records import from_record, to_record

log = logging.getLogger("vlm_nb")
T = TypeVar("T")
_REMEMBERED = 4096


@dataclass(slots=True, eq=False)
class Row:
    """One row under way; ``key`` is None until its content is known, or where it must not be shared."""

    position: int
    job: Job
    key: bytes | None = None
    followers: list[Row] = field(default_factory=list)


class Book:
    """The stores of one run. ``find`` and ``read`` are for worker threads, the rest for the caller's.

    A store that fails is left out from then on; ``trouble`` says so once, in the caller's thread.
    """

    def __init__(
        self, answerer: Answerer, options: RunOptions, line: Line = plain_line, *, noted: bool = True
    ) -> None:
        identity = model_identity(answerer)
        self._options = options
        self._label = answerer.asker.label
        self._keys = Keys(identity)
        self._lock = threading.Lock()
        self._recent: OrderedDict[bytes, Prediction] = OrderedDict()
        self._leaders: dict[bytes, Row] = {}
        self._drawn: Counter[bytes] = Counter()
        self._troubles: list[str] = []
        self._output = OutputFile(Path(options.output).expanduser(), line) if options.output else None
        self._ledger = self._open_ledger() if identity is not None else None
        self._run = 0
        if self._ledger and identity is not None and noted:
            shown = {name: identity[name] for name in ("model", "numbers", "family")}
            self._run = self._with_ledger(lambda ledger: ledger.begin(self._label, shown)) or 0

    def _open_ledger(self) -> Ledger | None:
        path = self._options.ledger_path
        if path is None:
            return None
        try:
            return Ledger(path, max_bytes=int(config.settings().ledger_max_gb * 1e9))
        except LedgerError as error:
            self._note(error)
            return None

    # In worker threads --------------------------------------------------------------------------------------

    def read(self, source: Source) -> tuple[Source, str]:
        """Return ``source`` with what was read of it, and its content key. Raises SourceError.

        A file is read once, so that the pixels that are asked about are those that were hashed.
        """
        if source.kind == "url":
            limits = config.settings()
            source = fetch(source, timeout=limits.url_timeout, max_bytes=int(limits.url_max_mb * 1e6))
        if source.kind != "path":
            return source, content_key(source)
        try:
            loaded = Source(source.label, "bytes", source.payload.read_bytes())
        except OSError:
            return source, content_key(source)  # its errors are in words
        return loaded, content_key(loaded)

    def known(self, job: Job) -> list[str] | None:
        """The content keys of a job's files without reading them, if the ledger vouches for all of them."""
        if self._ledger is None or self._options.verify or any(s.kind != "path" for s in job.sources):
            return None
        found = [self._shortcut(str(source.payload)) for source in job.sources]
        return None if None in found else [content for content in found if content]

    def _shortcut(self, path: str) -> str | None:
        try:
            real, stamp = identified(path)
        except OSError:
            return None
        return self._with_ledger(lambda ledger: ledger.content(real, stamp))

    def load(self, job: Job) -> tuple[Job, list[str]]:
        """Read a job's sources and return it over what was read, with the content keys."""
        read = [self._load(source) for source in job.sources]
        loaded = tuple(source for source, _ in read)
        return replace(job, sources=loaded), [content for _, content in read]

    def _load(self, source: Source) -> tuple[Source, str]:
        if source.kind != "path" or self._ledger is None:
            return self.read(source)
        with contextlib.suppress(OSError):
            before, started = identified(str(source.payload)), time.time()
            loaded, content = self.read(source)
            if identified(str(source.payload)) == before:
                self._with_ledger(lambda ledger: ledger.remember(*before, content, started))
            return loaded, content
        return self.read(source)

    def key(self, job: Job, contents: list[str]) -> bytes:
        """The key of a row; equal questions that are answered by chance get one each."""
        key = self._keys.key(job, contents)
        if not job.generation.sampling:
            return key
        with self._lock:
            self._drawn[key] += 1
            nth = self._drawn[key]
        return self._keys.key(job, contents, nth)

    def find(self, job: Job, key: bytes, position: int | None = None) -> Prediction | None:
        """Return the stored answer to ``job``; answers drawn by chance only if the options ask for it."""
        if job.generation.sampling and not self._options.reuse_sampled:
            return None
        with self._lock:
            recent = self._recent.get(key)
        if recent is not None:
            return recent
        record = self._with_ledger(lambda ledger: ledger.get(key))
        if record is None and self._output is not None:
            record = self._output.get(key)
        if record is None:
            return None
        try:
            return from_record(record, job, self._label, position)
        except (ValueError, KeyError, TypeError):
            log.debug("an unreadable ledger record was ignored", exc_info=True)
            return None

    def claim(self, row: Row) -> Prediction | bool:
        """True: compute ``row``; False: an equal row under way will answer it; or an answer just made."""
        if row.key is None or row.job.generation.sampling:
            return True
        with self._lock:
            if (recent := self._recent.get(row.key)) is not None:
                return recent
            leader = self._leaders.setdefault(row.key, row)
            if leader is not row:
                leader.followers.append(row)
        return leader is row

    # In the caller's thread ---------------------------------------------------------------------------------

    def finished(self, row: Row, outcome: Outcome, *, known: bool = False) -> list[Row]:
        """Keep the answer, unless it was ``known``, and return the rows that waited for it."""
        if row.key is None:
            return []
        result = outcome.result
        if result is not None and not known:
            self._keep(row, result)
        with self._lock:
            if result is not None:
                self._recent[row.key] = result
                if len(self._recent) > _REMEMBERED:
                    self._recent.popitem(last=False)
            if self._leaders.get(row.key) is row:
                del self._leaders[row.key]
            followers, row.followers = row.followers, []
        return followers

    def _keep(self, row: Row, result: Prediction) -> None:
        key = row.key
        if self._ledger is None or key is None:
            return
        record = to_record(result)
        self._with_ledger(
            lambda ledger: ledger.put(key, record, run=self._run, source=result.source, prompt=result.prompt)
        )

    def append(self, row: Row, outcome: Outcome) -> None:
        """Append a finished row to the output file."""
        if self._output is None:
            return
        try:
            self._output.append(row.position, row.key, outcome)
        except OSError as error:
            self._output.close()
            self._output = None
            self._troubles.append(f"the output file cannot be written ({error}); the run goes on without it.")

    def tick(self) -> None:
        """Now and then: commit what waits, and say once what went wrong."""
        if self._ledger is not None:
            self._with_ledger(Ledger.tick)
        while self._troubles:
            warnings.warn(self._troubles.pop(0), UserWarning, stacklevel=4)

    def close(self, *, rows: int = 0, hits: int = 0, failed: int = 0) -> None:
        """Note how the run went and close the stores."""
        if self._ledger is not None and self._run:
            self._with_ledger(lambda ledger: ledger.end(self._run, rows=rows, hits=hits, failed=failed))
        with self._lock:  # a worker may still be at a row that nobody waits for
            ledger, self._ledger = self._ledger, None
        if ledger is not None:
            with contextlib.suppress(LedgerError):
                ledger.close()
        if self._output is not None:
            self._output.close()

    # Beneath ------------------------------------------------------------------------------------------------

    def _with_ledger(self, use: Callable[[Ledger], T]) -> T | None:
        ledger = self._ledger
        if ledger is None:
            return None
        try:
            return use(ledger)
        except LedgerError as error:
            with self._lock:
                if self._ledger is not None:
                    self._ledger = None
                    self._note(error)
            return None

    def _note(self, error: LedgerError) -> None:
        self._troubles.append(
            f"{error} This run goes on without a ledger: its rows are not kept and would be computed again."
            " ledger='another.sqlite3' uses another file, ledger=False none."
        )
