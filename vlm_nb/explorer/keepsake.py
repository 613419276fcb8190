"""What stays of a widget in a saved notebook: the last answer as a normal display output beside it.

JupyterLab does not save widget state. The second output is hidden (by the widget's style sheet) wherever the
widget itself is alive.
"""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .turns import Turn

_STYLE = (
    "<style>.jp-OutputArea-child:has(>.jp-OutputArea-output.jupyter-widgets)"
    ":has(+.jp-OutputArea-child .vlmx-static){display:none}</style>"
)
"""Hides "Error displaying widget: model not found" above: only with it has an output itself that class."""
EMPTY = "vlm_nb Explorer: run the cell again to use it."


class Keepsake:
    """The display outputs that follow the last answer; ``update`` may be called from any thread."""

    def __init__(self) -> None:
        self._ids: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._bundle = bundle(None)

    def display(self) -> None:
        """Show the current state as an output of the running cell; it follows later updates."""
        display_id = f"vlm-explorer-{uuid.uuid4().hex}"
        with self._lock:
            self._ids = (*self._ids, display_id)
            _publish(self._bundle, display_id, update=False)

    def update(self, turn: Turn | None) -> None:
        """Replace the outputs by the state after ``turn``."""
        with self._lock:
            self._bundle = bundle(turn)
            for display_id in self._ids:
                _publish(self._bundle, display_id, update=True)


def _publish(data: dict[str, str], display_id: str, *, update: bool) -> None:
    from IPython import display

    publish: Any = display.publish_display_data
    publish(data, transient={"display_id": display_id}, update=update)


def bundle(turn: Turn | None) -> dict[str, str]:
    """The MIME bundle of ``turn``: text, and HTML with the image and its boxes (at most 150 KB)."""
    if turn is None or not turn.results:
        return {"text/plain": EMPTY, "text/html": _wrapped(f"<p>{EMPTY}</p>")}
    from .keeping import turn_bundle

    made = turn_bundle(turn)
    return {**made, "text/html": _wrapped(made["text/html"])}


def _wrapped(html: str) -> str:
    return f'<div class="vlmx-static">{_STYLE}{html}</div>'
