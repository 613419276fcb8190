"""The SQLite file of finished rows: one row is committed when it finishes, and found again by its key.

A kill loses nothing that was committed (WAL, ``synchronous=NORMAL``); a power cut may lose the last rows,
never the file. On a network file system, where WAL does not work, a rollback journal is used and rows are
committed in groups at most ``GROUP_SECONDS`` apart.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .opening import BUSY_SECONDS, set_up, translated, unusable
from .stamps import Stamp

GROUP_SECONDS = 0.25
_CHECK_EVERY = 2000


class Ledger:
    """One open ledger, for any thread. Every method raises LedgerError when the file cannot be used."""

    def __init__(self, path: Path, *, max_bytes: int | None = None) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self._lock = threading.RLock()
        self._written = 0
        self._closed = False
        with translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._grouped = not set_up(self._db, path)
            except BaseException:
                self._db.close()
                raise
        self._last_commit = time.monotonic()

    # Rows ---------------------------------------------------------------------------------------------------

    def get(self, key: bytes) -> str | None:
        """Return the stored answer (JSON text), or None."""
        row = self._one("SELECT answer FROM answers WHERE key = ?", (key,))
        return None if row is None else str(row[0])

    def put(self, key: bytes, answer: str, *, run: int, source: str | None = None, prompt: str = "") -> None:
        """Store one answer; the first one stays where the key is there already (two kernels may race)."""
        with self._writing():
            self._db.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)",
                (key, run, time.time(), source, prompt, answer),
            )
        self._written += 1
        if self._written % _CHECK_EVERY == 0:
            self.keep_cap()

    def content(self, path: str, stamp: Stamp) -> str | None:
        """Return the content key of a file that looks untouched since it was hashed, or None."""
        row = self._one("SELECT inode, size, mtime_ns, ctime_ns, content FROM files WHERE path = ?", (path,))
        return str(row[4]) if row is not None and tuple(row[:4]) == stamp else None

    def remember(self, path: str, stamp: Stamp, content: str, hashed_at: float) -> None:
        """Keep a file's content key, if its times allow to recognise a later change."""
        if stamp.settled(hashed_at):
            with self._writing():
                self._db.execute(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", (path, *stamp, content)
                )

    # Runs ---------------------------------------------------------------------------------------------------

    def begin(self, model: str, settings: Mapping[str, Any]) -> int:
        """Note that a run starts and return its number."""
        with self._writing():
            cursor = self._db.execute(
                "INSERT INTO runs (started, model, settings) VALUES (?, ?, ?)",
                (time.time(), model, json.dumps(settings, default=str, sort_keys=True)),
            )
        return int(cursor.lastrowid or 0)

    def end(self, run: int, *, rows: int, hits: int, failed: int) -> None:
        """Note how a run ended."""
        with self._writing():
            self._db.execute(
                "UPDATE runs SET ended = ?, rows = ?, hits = ?, failed = ? WHERE id = ?",
                (time.time(), rows, hits, failed, run),
            )

    def runs(self) -> list[dict[str, Any]]:
        """The runs, oldest first, as plain dicts; ``kept`` counts the answers that are still there."""
        names = ("id", "started", "ended", "model", "settings", "rows", "hits", "failed", "kept")
        with self._reading():
            found = self._db.execute(
                "SELECT runs.*, (SELECT COUNT(*) FROM answers WHERE run = runs.id) FROM runs ORDER BY id"
            ).fetchall()
        return [
            dict(zip(names, row, strict=True)) | {"settings": json.loads(row[4] or "{}")} for row in found
        ]

    # Size ---------------------------------------------------------------------------------------------------

    def size(self) -> int:
        """Bytes in use."""
        with self._reading():
            pages, free, each = (
                self._db.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        return int((pages - free) * each)

    def count(self) -> int:
        """How many answers are stored."""
        row = self._one("SELECT COUNT(*) FROM answers", ())
        return int(row[0]) if row else 0

    def keep_cap(self) -> int:
        """Remove the oldest answers while the file is above its cap; return how many went."""
        removed = 0
        if self.max_bytes is None or self.size() <= self.max_bytes:
            return removed
        while (used := self.size()) > 0.9 * self.max_bytes and (left := self.count()):
            share = max(1, int(left * (1 - 0.9 * self.max_bytes / used)))
            removed += self._remove("key IN (SELECT key FROM answers ORDER BY created LIMIT ?)", (share,))
        self._shrink()
        return removed

    def prune(self, *, before: float | None = None, model: str | None = None) -> int:
        """Remove answers made before a time (seconds since the epoch), by a model, or all."""
        clauses: list[str] = ["1"]
        values: list[Any] = []
        if before is not None:
            clauses.append("created < ?")
            values.append(before)
        if model is not None:
            clauses.append("run IN (SELECT id FROM runs WHERE model = ?)")
            values.append(model)
        removed = self._remove(" AND ".join(clauses), tuple(values))
        if before is None and model is None:
            with self._writing():
                self._db.execute("DELETE FROM files")
        self._shrink()
        return removed

    def _remove(self, condition: str, values: tuple[Any, ...]) -> int:
        with self._writing():
            return self._db.execute(f"DELETE FROM answers WHERE {condition}", values).rowcount  # noqa: S608 - ours

    def _shrink(self) -> None:
        self.commit()
        with self._reading():
            self._db.executescript("PRAGMA incremental_vacuum")  # execute() would free one page only
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # Reading out, closing -----------------------------------------------------------------------------------

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield every answer with its key (hex), run, model, time, source and prompt, in order of time."""
        last = (-1.0, b"")
        while True:
            with self._reading():
                page = self._db.execute(
                    "SELECT key, run, created, source, prompt, answer, model FROM answers LEFT JOIN runs"
                    " ON runs.id = run WHERE (created, key) > (?, ?) ORDER BY created, key LIMIT 500",
                    last,
                ).fetchall()
            if not page:
                return
            for key, run, created, source, prompt, answer, model in page:
                row = {"key": key.hex(), "run": run, "created": created, "model": model}
                yield row | {"source": source, "prompt": prompt, **json.loads(answer)}
            last = (page[-1][2], page[-1][0])

    def tick(self) -> None:
        """Write out a group that has waited long enough; called now and then while rows are slow to come."""
        if self._grouped and time.monotonic() - self._last_commit > GROUP_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Write out a group that is still open."""
        with self._reading():
            if self._db.in_transaction:
                self._db.execute("COMMIT")
            self._last_commit = time.monotonic()

    def close(self) -> None:
        """Commit and close. Twice is fine; a thread that still asks afterwards finds nothing."""
        with self._lock:  # closing while another thread is inside a query would crash the process
            self._closed = True
            try:
                with contextlib.suppress(sqlite3.ProgrammingError):
                    self.commit()
            finally:
                self._db.close()

    # Beneath ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, translated(self.path):
            yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Autocommit with WAL; a group of rows with a rollback journal, whose commits wait for the disk."""
        with self._reading():
            if self._grouped and not self._db.in_transaction:
                self._db.execute("BEGIN IMMEDIATE")
            yield
            self.tick()

    def _one(self, query: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        try:  # written out: every row of a restart comes through here twice
            with self._lock:
                if self._closed:
                    return None
                row: tuple[Any, ...] | None = self._db.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise unusable(self.path, error) from error
        return row
