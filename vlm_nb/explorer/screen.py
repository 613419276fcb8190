"""The seam between the widget and its parts: what a part may tell the browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Screen(Protocol):
    """What the parts (loading, album, asking) know of the widget. Any thread may call."""

    def show(self, **areas: Any) -> None:
        """Replace what the named areas of the widget show (plain values; a list is replaced, not changed)."""

    def message(self, content: dict[str, Any], buffers: Sequence[bytes] = ()) -> None:
        """Send something that is not kept: an image that a view asked for, an acknowledgement."""

    def alert(self, error: BaseException | str) -> None:
        """Show an error, or a line of text, as an alert."""
