"""A gallery of a table's rows."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..display import gallery_html, plain_text, preview_jpeg
from ..display.html import OPEN, block
from ..errors import VLMError
from ..results import Prediction
from ..sources import load_sized
from .boxes import grounding_name, name_in, phrases_of, status_of
from .columns import is_null, whole
from .merge import noted
from .table import NO_IMAGE, error_of, text_of

_JPEG_BYTES = 40_000
_SIDE = 640


class Gallery:
    """Cards of the first of ``rows`` rows, which a notebook shows as a grid, and a terminal as text."""

    def __init__(self, items: list[Prediction | VLMError], rows: int) -> None:
        self.items = items
        self.rows = rows

    def __repr__(self) -> str:
        parts = [plain_text(i) if isinstance(i, Prediction) else text_of(i) for i in self.items]
        return "\n\n".join([*parts, *self._left_out()])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        html = gallery_html(self.items, limit=len(self.items) or 1)
        below = "".join(f"{OPEN}{block('more', line)}</div>" for line in self._left_out())
        return {"text/plain": repr(self), "text/html": html + below}

    def _left_out(self) -> list[str]:
        """A line where there are more rows than cards, with the call that shows more."""
        shown = len(self.items)
        wider = min(self.rows, max(12, 4 * shown))
        what = "all" if wider == self.rows else "more"
        return [f"{shown:,} of {self.rows:,} rows; show({wider}) shows {what}"] if shown < self.rows else []


def cards(
    frame: pd.DataFrame, images: pd.Series[Any], count: int, name: str | None
) -> list[Prediction | VLMError]:
    """One card for each of the first ``count`` rows: image, text, boxes, or the error of the answer shown."""
    count = whole("count", count, 0)
    calls = noted(frame)["calls"]
    shown = [name] if name is not None else list(calls)
    texts = [n for n in shown if n in frame.columns and calls.get(n, {}).get("task") in ("caption", "ask")]
    boxes = grounding_name(frame, name if name is not None and name not in texts else None)
    errors = [f"{n}_error" for n in shown if f"{n}_error" in frame.columns]
    return [
        _card(frame, row, images.iloc[row], texts, boxes, errors) for row in range(min(count, len(frame)))
    ]


def _card(
    frame: pd.DataFrame, row: int, cell: Any, texts: list[str], boxes: str | None, errors: list[str]
) -> Prediction | VLMError:
    failed = [str(frame[name].iloc[row]) for name in errors if not is_null(frame[name].iloc[row])]
    if is_null(cell) or failed:
        return error_of(failed[0] if failed else NO_IMAGE, source=_label(cell, row), row=row)
    try:
        loaded = load_sized(cell, fit=(_SIDE, _SIDE))
    except VLMError as error:
        error.source, error.index = error.source or _label(cell, row), row
        return error
    places = frame[boxes].iloc[row] if boxes else None
    words = [str(frame[name].iloc[row]) for name in texts if not is_null(frame[name].iloc[row])]
    return Prediction(
        "\n".join(words),
        grounded_phrases=phrases_of(places),
        grounding=status_of(frame, boxes, row) if boxes else None,
        source=_label(cell, row),
        index=row,
        image_size=loaded.original_size,
        preview=preview_jpeg(loaded.image, _JPEG_BYTES),
    )


def _label(cell: Any, row: int) -> str:
    return name_in(cell) or f"row {row}"
