"""The store of finished rows: what a list, folder or table run has answered is never computed again.

``size()``, ``runs()``, ``export("rows.jsonl")`` and ``prune(...)`` look after it. It lies in the user's cache
folder unless ``ledger=`` of a call or the ``ledger`` setting names another file, as ``path=`` does here.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from .. import config
from ..errors import LedgerError, OptionError
from .store import Ledger

__all__ = ["Ledger", "default_path", "export", "prune", "runs", "size"]

Place = str | os.PathLike[str] | None


def default_path() -> Path:
    """The ledger's file in force, whether or not it exists or is used."""
    setting = config.settings().ledger
    if setting is None or setting.lower() == "off":
        return config.cache_folder() / "ledger.sqlite3"
    return Path(setting).expanduser()


def size(path: Place = None) -> int:
    """Return the bytes that the stored rows take; 0 where there is no ledger. Raises LedgerError."""
    with _opened(path) as ledger:
        return ledger.size() if ledger else 0


def runs(path: Place = None) -> list[dict[str, Any]]:
    """Return the runs, oldest first.

    Each is a dict of ``id``, ``started`` and ``ended`` (seconds since the epoch; ``ended`` is None after a
    kill), ``model``, ``settings``, ``rows``, ``hits`` (answered without the model), ``failed`` and ``kept``
    (answers still stored). Raises LedgerError.
    """
    with _opened(path) as ledger:
        return ledger.runs() if ledger else []


def export(target: str | os.PathLike[str], path: Place = None) -> int:
    """Write every stored answer to ``target``, one JSON object a line, and return how many.

    Sources are labels: URLs stand without user info and query. Raises LedgerError, and OptionError for a
    target that cannot be written.
    """
    count = 0
    with _opened(path) as ledger, _written(target) as stream:
        for row in ledger.rows() if ledger else ():
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def prune(
    path: Place = None,
    *,
    max_gb: float | None = None,
    older_than_days: float | None = None,
    model: str | None = None,
) -> int:
    """Remove stored answers and return how many: the oldest above a size, the old, a model's, or all.

    With both ``older_than_days`` and ``model``, those that are both. With none of the three, everything.
    Raises LedgerError, and OptionError for a limit that is no number or below zero.
    """
    _check_limit("max_gb", max_gb)
    _check_limit("older_than_days", older_than_days)
    if model is not None and not isinstance(model, str):
        raise OptionError(f"model={model!r}: expected the name of a model.")
    with _opened(path) as ledger:
        if ledger is None:
            return 0
        if max_gb is not None:
            ledger.max_bytes = int(max_gb * 1e9)
            removed = ledger.keep_cap()
            if older_than_days is None and model is None:
                return removed
            return removed + ledger.prune(before=_days_ago(older_than_days), model=model)
        return ledger.prune(before=_days_ago(older_than_days), model=model)


def _check_limit(name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and value >= 0):  # "not" so that NaN fails too
        raise OptionError(f"{name}={value!r}: expected a number, 0 or more.")


def _written(target: str | os.PathLike[str]) -> TextIO:
    if not isinstance(target, (str, os.PathLike)):
        raise OptionError(f"{target!r}: expected the name of a JSONL file.")
    try:
        return Path(target).expanduser().open("w", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise OptionError(f"{os.fspath(target)!r} cannot be written: {error}.") from None


def _days_ago(days: float | None) -> float | None:
    return None if days is None else time.time() - days * 86400


@contextlib.contextmanager
def _opened(path: Place) -> Iterator[Ledger | None]:
    """The ledger, or None where there is no file: looking must not make one."""
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise OptionError(f"{path!r}: expected the file of a ledger.")
    place = Path(path).expanduser() if path is not None else default_path()
    if not place.exists():
        if path is not None:
            raise LedgerError(f"no ledger at {place}.")
        yield None
        return
    with contextlib.closing(Ledger(place)) as ledger:
        yield ledger
