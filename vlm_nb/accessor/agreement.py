"""Where two models disagree: the rows that are worth a look."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..errors import OptionError
from ..likeness import box_iou, text_likeness
from .boxes import phrases_of
from .columns import is_null

NAME = "agreement"


def ranked(frame: pd.DataFrame, left: Any, right: Any, name: str) -> pd.DataFrame:
    """Return ``frame`` with a column ``name``, lowest first; nulls last. Raises OptionError."""
    for column in (left, right):
        if column not in frame.columns:
            raise OptionError(f"no column is called {column!r}; there are: {', '.join(map(repr, frame))}.")
    values = [agreement_of(*cells) for cells in zip(frame[left], frame[right], strict=True)]
    out = frame.copy()
    out[name] = pd.Series(pd.array(values, dtype="Float64"), index=out.index)
    order = sorted(range(len(values)), key=lambda row: (values[row] is None, values[row] or 0.0))
    return out.iloc[order]


def agreement_of(left: Any, right: Any) -> float | None:
    """0..1 for two cells: box IoU for lists of boxes, else the texts' likeness.

    0 where only one is null, None where both are.
    """
    if is_null(left) or is_null(right):
        return None if is_null(left) and is_null(right) else 0.0
    if isinstance(left, str) or isinstance(right, str):
        return text_likeness(str(left), str(right))
    if hasattr(left, "__len__") and hasattr(right, "__len__"):
        boxes = box_iou(phrases_of(left), phrases_of(right))
        return 1.0 if boxes is None else boxes
    return float(left == right)


def checked_models(models: Any) -> tuple[Any, Any]:
    """Two models, or their names. Raises OptionError."""
    if isinstance(models, tuple | list) and len(models) == 2:
        return models[0], models[1]
    raise OptionError(f"models={models!r}: expected two loaded models, or their names.")
