"""``output="file.jsonl"``: one line a finished row, appended as it finishes, read again on the next run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..results import Outcome

Line = Callable[[int, Outcome], dict[str, Any]]


def plain_line(position: int, outcome: Outcome) -> dict[str, Any]:
    """The line of one row: ``index``, the answer's fields (null where it failed) and ``error``."""
    result, error = outcome
    if result is not None:
        return {**result.to_dict(), "index": position, "error": None}
    source = error.source if error else None
    return {"index": position, "source": source, "error": f"{type(error).__name__}: {error}"}


class OutputFile:
    """A JSONL file that grows by finished rows; a line that a kill cut in two is removed when it is opened.

    Rows that the file holds already are not appended again. Raises OptionError for a file that holds
    something else.
    """

    def __init__(self, path: Path, line: Line = plain_line) -> None:
        self._path = path
        self._line = line
        self._offsets: dict[bytes, int] = {}
        self._rows: set[tuple[int, bytes]] = set()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise OptionError(f"output={str(path)!r} cannot be written: {error.strerror}.") from None
        try:
            self._scan()
        except BaseException:
            self._file.close()
            raise

    def get(self, key: bytes) -> str | None:
        """Return the answer of an earlier line with that key, as a record."""
        offset = self._offsets.get(key)
        if offset is None:
            return None
        with self._path.open("rb") as stream:
            stream.seek(offset)
            line = json.loads(stream.readline())
        plain = dict(line["answer"]) if isinstance(line.get("answer"), dict) else line
        for name in ("index", "source", "prompt", "model", "error", "key"):
            plain.pop(name, None)
        return json.dumps(plain)

    def append(self, position: int, key: bytes | None, outcome: Outcome) -> None:
        """Write one row, unless an equal one is there. Raises OSError."""
        if key is not None and (position, key) in self._rows:
            return
        line = self._line(position, outcome) | {"key": key.hex() if key else None}
        self._file.write(json.dumps(line, ensure_ascii=False, default=str).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; what a full disk refused was reported when it was appended."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _scan(self) -> None:
        self._file.seek(0)
        offset = 0
        for raw in self._file:
            if not raw.endswith(b"\n") and raw.startswith(b"{") and _read(raw) is None:
                self._file.truncate(offset)
                return
            self._take(raw, offset)
            offset += len(raw)
        if offset and not raw.endswith(b"\n"):
            self._file.write(b"\n")

    def _take(self, raw: bytes, offset: int) -> None:
        plain = _read(raw)
        if plain is None or "index" not in plain or "key" not in plain:
            raise OptionError(f"{self._path} exists and is no output of vlm_nb; give output= another name.")
        if plain["key"] and not plain["error"]:
            key = bytes.fromhex(plain["key"])
            self._offsets.setdefault(key, offset)
            self._rows.add((int(plain["index"]), key))


def _read(raw: bytes) -> dict[str, Any] | None:
    try:
        plain = json.loads(raw)
    except ValueError:
        return None
    return plain if isinstance(plain, dict) else None
