"""A bar where there is a front end for one, plain lines elsewhere; written in the caller's thread only."""

from __future__ import annotations

import sys
import time
from typing import Any

from .counts import Counts

FIRST_LINE_SECONDS = 5.0
LINE_SECONDS = 15.0
BAR_SECONDS = 0.5
"""How long a run must have lasted, and must be likely to last, for a widget to be shown.

A front end that still builds a widget when it is closed logs errors.
"""


def in_kernel() -> bool:
    """Whether a Jupyter kernel runs this; imports nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class Progress:
    """Shows counts as they grow. ``total`` is None where it is not known."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._started = time.monotonic()
        self._next_line = self._started + FIRST_LINE_SECONDS
        self._shown = 0
        self._plain = not in_kernel() and not sys.stderr.isatty()
        self._bar: Any = None if self._plain else _bar(total)
        self._place = _place(self._bar, total)
        self._waits = self._place is not None

    def show(self, counts: Counts) -> None:
        """Bring the bar up to ``counts``, or print a line now and then."""
        if self._plain:
            if time.monotonic() >= self._next_line:
                self._line(counts)
                self._next_line = time.monotonic() + LINE_SECONDS
            return
        if self._waits and _long(counts.rows, self._total, time.monotonic() - self._started):
            self._waits = False
            self._place.update(self._bar.container)
        if self._bar.update(counts.rows - self._shown):
            self._bar.set_postfix_str(notes(counts), refresh=False)
        self._shown = counts.rows

    def close(self, counts: Counts) -> None:
        """End the bar and leave one line in its place; a saved notebook keeps that line."""
        if self._bar is not None:
            self._bar.close()
        if self._place is not None:
            said = summary(counts, self._total, time.monotonic() - self._started)
            self._place.update({"text/plain": said}, raw=True)
        else:
            self._line(counts)

    def _line(self, counts: Counts) -> None:
        out = sys.stdout if in_kernel() else sys.stderr
        out.write(summary(counts, self._total, time.monotonic() - self._started) + "\n")
        out.flush()


def summary(counts: Counts, total: int | None, seconds: float) -> str:
    """One line: rows, of how many, in how long, how fast those answered now, what became of the rest."""
    of = f" of {total:,}" if total and total > counts.rows else ""
    new = counts.rows - counts.nulls - counts.hits - counts.failed
    speed = new / max(seconds, 1e-9)
    rate = f", {speed:,.1f} rows/s" if speed >= 1 else f", {speed:.2g} rows/s"
    rate = rate if new and seconds > 0.05 else ""
    stopped = "stopped" if counts.stopped else ""
    parts = [f"{counts.rows:,}{of} rows in {seconds:,.1f} s{rate}", stopped, notes(counts)]
    return "; ".join(part for part in parts if part)


def notes(counts: Counts) -> str:
    """What had no image, what was known, what failed and what was cut, where there is any."""
    without = f"{counts.nulls:,} without an image" if counts.nulls else ""
    known = f"{counts.hits:,} already known" if counts.hits else ""
    failed = f"{counts.failed:,} failed" if counts.failed else ""
    cut = f"{counts.runaway:,} repeated themselves and were cut" if counts.runaway else ""
    return ", ".join(part for part in (without, known, failed, cut) if part)


def _bar(total: int | None) -> Any:
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]  # the class that tqdm.auto chose
        monitor_interval = 0  # no thread that writes on its own

    widget = in_kernel() and any(cls.__name__ == "tqdm_notebook" for cls in tqdm.__mro__)
    own_place: dict[str, Any] = {"display": False} if widget else {}
    return Bar(total=total, unit="row", leave=False, mininterval=0.2, dynamic_ncols=True, **own_place)


def _place(bar: Any, total: int | None) -> Any:
    """The output where a widget bar will be, then its last line; None for any other bar."""
    if getattr(bar, "container", None) is None:
        return None
    from IPython.display import display

    first = f"{total:,} rows …" if total is not None else "rows …"
    return display({"text/plain": first}, raw=True, display_id=True)


def _long(rows: int, total: int | None, seconds: float) -> bool:
    """Whether a run that did ``rows`` in ``seconds`` lasts, and is likely to go on for, ``BAR_SECONDS``."""
    left = seconds if total is None else seconds * (total - rows) / max(rows, 1)
    return min(seconds, left) > BAR_SECONDS
