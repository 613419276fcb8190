"""A gallery of a table's rows."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..display import gallery_html, plain_text, preview_jpeg
from ..errors import SourceError, VLMError
from ..results import Prediction
from ..sources import load_sized
from .boxes import file_name, grounding_name, phrases_of, status_of
from .columns import is_null, whole
from .merge import noted
from .table import NO_IMAGE

_JPEG_BYTES = 40_000
_SIDE = 640


class Gallery:
    """Cards that a notebook shows as a grid, and a terminal as text."""

    def __init__(self, items: list[Prediction | VLMError]) -> None:
        self.items = items

    def __repr__(self) -> str:
        return "\n\n".join(plain_text(i) if isinstance(i, Prediction) else str(i) for i in self.items)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": gallery_html(self.items, limit=len(self.items) or 1)}


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
        return SourceError(failed[0] if failed else NO_IMAGE, source=_label(cell, row), index=row)
    try:
        loaded = load_sized(cell, fit=(_SIDE, _SIDE))
    except VLMError as error:
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
    return f"row {row}" if is_null(cell) else file_name(cell, row)
