"""Stop in a notebook: the call returns what is finished, says how to go on; its cell ends as interrupted."""

from __future__ import annotations

import sys
import warnings
from typing import Any


def in_ipython() -> bool:
    """Whether this runs in an IPython shell; imports nothing."""
    return _shell() is not None


def interrupted(done: int, total: int, *, kept: bool, stacklevel: int) -> None:
    """Warn at ``stacklevel`` (1: the caller's line) how many rows are answered, and let the cell end so.

    ``kept`` says whether the ledger has them.
    """
    said = f"interrupted: {done:,} of {total:,} rows are answered."
    go_on = (
        "Run the cell again to go on from there: finished rows are taken from the ledger."
        if kept
        else "The ledger is off, so that another run begins anew."
    )
    warnings.warn(f"{said} {go_on}", UserWarning, stacklevel=stacklevel + 1)
    end_cell(said)


def end_cell(said: str) -> None:
    """In IPython, let the running cell end as interrupted.

    The rest of it runs, then a kernel reports an error: cells queued behind it do not run.
    """
    shell, error = _shell(), KeyboardInterrupt(said)
    if shell is None:
        return

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
