"""Opening a ledger's file: its tables, its journal, and what SQLite's errors become."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import LedgerError
from .places import on_network

SCHEMA_VERSION = 1
BUSY_SECONDS = 15.0
TABLES = frozenset({"answers", "files", "runs"})

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY, run INTEGER NOT NULL, created REAL NOT NULL,
    source TEXT, prompt TEXT, answer TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_by_age ON answers (created);
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, inode INTEGER, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER,
    content TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY, started REAL NOT NULL, ended REAL, model TEXT, settings TEXT,
    rows INTEGER DEFAULT 0, hits INTEGER DEFAULT 0, failed INTEGER DEFAULT 0
);
"""


def set_up(db: sqlite3.Connection, path: Path) -> bool:
    """Prepare the file and return whether it uses WAL."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"{path} was written by a newer vlm_nb (format {version}, known is {SCHEMA_VERSION})."
        )
    if version == 0:
        _refuse_another(db, path)
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    mode = _journal(db, "DELETE" if on_network(path) else "WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    if version == 0:
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    else:
        db.execute("SELECT 1 FROM answers LIMIT 1").fetchone()
    return mode.lower() == "wal"


def _refuse_another(db: sqlite3.Connection, path: Path) -> None:
    """Raise LedgerError for a database of something else; one that another process is making is ours."""
    tables = {str(row[0]) for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if other := sorted(tables - TABLES):
        raise LedgerError(f"{path} is a database of something else (it holds {', '.join(other[:3])}).")


def _journal(db: sqlite3.Connection, wanted: str) -> str:
    """Set the journal mode and return the one in force; a change does not wait for others by itself."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return str(db.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0])
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise into LedgerError."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, LedgerError):
            raise
        raise unusable(path, error) from error


def unusable(path: Path, error: Exception) -> LedgerError:
    """The error of a ledger that SQLite refuses."""
    return LedgerError(f"the ledger {path} cannot be used ({error}).")
