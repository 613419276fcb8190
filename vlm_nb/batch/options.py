"""How a run over many rows goes: what callers may set, and what is checked before the first row."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import config
from ..errors import OptionError, unknown_option


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """``ledger``: a path, False or "off", or None for the ``ledger`` setting (the user's cache folder).

    ``output``: a JSONL file that gets every finished row appended. ``verify``: hash every file again instead
    of trusting its size and times. ``reuse_sampled``: also take answers that were drawn at random from the
    ledger. ``show_progress``: None for the setting. ``total``: the number of rows, where it is known;
    ``nulls``: how many of them have no image, so that there is no job for them.
    """

    ledger: str | os.PathLike[str] | bool | None = None
    output: str | os.PathLike[str] | None = None
    verify: bool = False
    reuse_sampled: bool = False
    show_progress: bool | None = None
    total: int | None = None
    nulls: int = 0

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """The option names."""
        return tuple(f.name for f in dataclasses.fields(cls))

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> RunOptions:
        """Build from keywords; raises OptionError for an unknown one, naming the nearest."""
        names = cls.keys()
        for key in options:
            if key not in names:
                raise unknown_option("run option", key, names)
        for key in ("verify", "reuse_sampled", "show_progress"):
            if not isinstance(options.get(key), bool | None):
                raise OptionError(f"{key}={options[key]!r}: expected True or False.")
        made = cls(**options)
        _check_output(made.output)
        ledger_path(made.ledger)
        return made

    @property
    def progress(self) -> bool:
        """Whether progress is shown."""
        return config.settings().show_progress if self.show_progress is None else self.show_progress

    @property
    def ledger_path(self) -> Path | None:
        """The ledger's file, or None when it is off."""
        return ledger_path(self.ledger)


def _check_output(output: Any) -> None:
    if output is None:
        return
    if not isinstance(output, (str, os.PathLike)) or not os.fspath(output) or "\0" in os.fspath(output):
        raise OptionError(f"output={output!r}: expected the name of a JSONL file.")
    if Path(output).expanduser().is_dir():
        raise OptionError(f"output={os.fspath(output)!r} is a folder; give the name of a JSONL file in it.")


def ledger_path(asked: str | os.PathLike[str] | bool | None = None) -> Path | None:
    """The file that ``ledger=asked`` means: keyword, setting, or the user's cache folder; None is off."""
    chosen = config.settings().ledger if asked is None or asked is True else asked
    if chosen is False or (isinstance(chosen, str) and chosen.lower() == "off"):
        return None
    if chosen is None:
        return config.cache_folder() / "ledger.sqlite3"
    if not isinstance(chosen, (str, os.PathLike)):
        raise OptionError(f'ledger={asked!r}: expected a file name, "off", False or None.')
    if "\0" in os.fspath(chosen):
        raise OptionError(f"ledger={asked!r} cannot be a file name.")
    return Path(chosen).expanduser()


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part keywords of a call into those of the run (``ledger``, ``output``, …) and the rest."""
    how = {key: value for key, value in options.items() if key in RUN_KEYS}
    return how, {key: value for key, value in options.items() if key not in RUN_KEYS}


RUN_KEYS = ("ledger", "output", "verify", "reuse_sampled")
"""The options that front ends pass on beside ``show_progress``."""
