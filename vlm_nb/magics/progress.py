"""How far a load is: one rewritten output in a notebook, one rewritten line in a terminal."""

from __future__ import annotations

import html
import time
from typing import TYPE_CHECKING, Any

from IPython.display import display

from ..machine import gigabytes
from .streaming import in_kernel

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ..engines.base import Progress

SECONDS_BETWEEN = 0.1


class LoadView:
    """Shows the progress of one load; ``finish`` leaves one line."""

    def __init__(self, shell: InteractiveShell, name: str) -> None:
        self._name = name
        self._last = 0.0
        self._wide = 0
        self._handle = None
        if in_kernel(shell):
            self._handle = display(_bundle(f"loading {name} …"), raw=True, display_id=True)

    def report(self, progress: Progress) -> None:
        """Take one report from the load; shown at most ten times a second."""
        if time.monotonic() - self._last < SECONDS_BETWEEN:
            return
        self._last = time.monotonic()
        text = f"{self._name}: {progress.text}"
        if progress.total:
            text += f" {_amount(progress.done, progress.total)}"
        self._show(text, _share(progress))

    def finish(self, text: str) -> None:
        """Replace the progress by ``text``."""
        self._show(text, None)
        if self._handle is None and (text or self._wide):
            print()  # noqa: T201 - ends the rewritten line

    def _show(self, text: str, share: float | None) -> None:
        if self._handle is not None:
            self._handle.update(_bundle(text, share), raw=True)
            return
        print(f"\r{text.ljust(self._wide)}", end="", flush=True)  # noqa: T201 - the terminal's progress
        self._wide = len(text)


def _amount(done: float, total: float) -> str:
    if total <= 1000:  # parts, not bytes
        return f"{100 * done / total:.0f} %"
    return f"{gigabytes(done)} of {gigabytes(total)}"


def _share(progress: Progress) -> float | None:
    return min(1.0, progress.done / progress.total) if progress.total else None


def _bundle(text: str, share: float | None = None) -> dict[str, Any]:
    bar = ""
    if share is not None:
        bar = f'<progress aria-label="loading" max="100" value="{100 * share:.0f}"></progress> '
    return {"text/plain": text, "text/html": f"<div>{bar}{html.escape(text)}</div>" if text else ""}
