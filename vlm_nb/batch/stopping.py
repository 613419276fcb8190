"""Stop in a notebook: the call returns what is finished, says how to go on; its cell ends as interrupted."""

from __future__ import annotations

import sys
import warnings
from typing import Any


def in_ipython() -> bool:
    """Whether this runs in an IPython shell; imports nothing."""
    return _shell() is not None


def interrupted(done: int, total: int, *, stacklevel: int) -> None:
    """Warn at ``stacklevel`` (1: the caller's line) how many rows are answered, and let the cell end so."""
    said = f"interrupted: {done:,} of {total:,} rows are answered."
    go_on = "Run the cell again to go on from there: finished rows are taken from the ledger."
    warnings.warn(f"{said} {go_on}", UserWarning, stacklevel=stacklevel + 1)
    shell = _shell()
    if shell is not None:
        _end_as_interrupted(shell, KeyboardInterrupt(said))


def _end_as_interrupted(shell: Any, error: KeyboardInterrupt) -> None:
    """The rest of the cell runs, then a kernel reports an error: cells queued behind it do not run."""

    def forget(*_: Any) -> None:
        shell.events.unregister("pre_run_cell", forget)
        shell.events.unregister("post_run_cell", end)

    def end(result: Any) -> None:
        forget()
        if result is not None and result.success:
            result.error_in_exec = error
            shell._last_traceback = []  # the kernel would send that of an earlier error

    shell.events.register("pre_run_cell", forget)  # a silent cell has no post_run_cell
    shell.events.register("post_run_cell", end)


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()
