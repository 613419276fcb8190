"""Boxes of a table, one row each, and its rows as plain values for the exporters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import OptionError
from ..export import LabelledImage
from ..results import GroundedPhrase, GroundingStatus
from ..sources import Source, expand
from .columns import is_null
from .merge import noted

_CORNERS = ("x_min", "y_min", "x_max", "y_max")


def grounding_name(frame: pd.DataFrame, name: str | None) -> str | None:
    """The column of boxes: the one asked for, that of the last grounding, or "boxes"; None for none.

    Raises OptionError for a name that is no column of boxes.
    """
    if name is not None:
        if name not in frame.columns:
            raise OptionError(f"no column of boxes is called {name!r}; df.vlm.ground(...) makes one.")
        return name
    made = [n for n, call in noted(frame)["calls"].items() if call["task"] in ("detect", "locate")]
    candidates = [column for column in (*reversed(made), "boxes") if column in frame.columns]
    return candidates[0] if candidates else None


def needed_boxes(frame: pd.DataFrame, name: str | None) -> str:
    """``grounding_name`` where there must be one. Raises OptionError for a table that was never grounded."""
    column = grounding_name(frame, name)
    if column is None:
        raise OptionError("there are no boxes yet; df.vlm.ground(...) makes them.")
    return column


def phrases_of(cell: Any) -> tuple[GroundedPhrase, ...]:
    """The phrases of a cell: a list of dicts as ``ground`` makes it, also after Parquet or JSON."""
    if is_null(cell):
        return ()
    try:
        return tuple(_phrase(box) for box in cell)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        shown = repr(cell)[:100]
        raise OptionError(f"{shown} is no list of boxes as df.vlm.ground(...) makes it.") from None


def _phrase(box: Mapping[str, Any]) -> GroundedPhrase:
    point: Any = box.get("point")
    confidence: Any = box.get("confidence")
    return GroundedPhrase(
        str(box["phrase"]),
        _four(box["bbox"]),
        point=None if point is None else (float(point[0]), float(point[1])),
        image_index=int(box.get("image_index") or 0),
        confidence=None if is_null(confidence) else float(confidence),
        source=str(box.get("source") or "model"),
    )


def _four(values: Sequence[float]) -> tuple[float, float, float, float]:
    x_min, y_min, x_max, y_max = (float(value) for value in values)
    if not all(map(math.isfinite, (x_min, y_min, x_max, y_max))):
        raise ValueError(f"a box of {values!r}")
    return x_min, y_min, x_max, y_max


def size_of(frame: pd.DataFrame, row: int) -> tuple[int, int] | None:
    """(width, height) in pixels of a row's upright image, as a grounding noted it."""
    if "image_width" not in frame.columns or "image_height" not in frame.columns:
        return None
    width, height = frame["image_width"].iloc[row], frame["image_height"].iloc[row]
    return None if pd.isna(width) or pd.isna(height) else (int(width), int(height))


def status_of(frame: pd.DataFrame, column: str, row: int) -> GroundingStatus | None:
    """What the grounding of a row came to; without its column, what its boxes tell."""
    name = "grounding" if column == "boxes" else f"{column}_grounding"
    if name in frame.columns:
        value = frame[name].iloc[row]
        return None if is_null(value) else value
    cell = frame[column].iloc[row]
    return None if is_null(cell) else "found" if len(cell) else "none"


def box_rows(frame: pd.DataFrame, name: str | None, *, pixels: bool) -> pd.DataFrame:
    """One row a box; see ``FrameAccessor.boxes``."""
    column = needed_boxes(frame, name)
    rows: list[int] = []
    found: list[dict[str, Any]] = []
    for row, cell in enumerate(frame[column]):
        for phrase in phrases_of(cell):
            rows.append(row)
            found.append(_box(phrase, size_of(frame, row), pixels))
    names = ["phrase", *_CORNERS, "confidence", "image_index", "image_width", "image_height"]
    out = pd.DataFrame(found, columns=names, index=frame.index.take(rows))
    return out.astype({"image_width": "Int64", "image_height": "Int64", "confidence": "Float64"})


def _box(phrase: GroundedPhrase, size: tuple[int, int] | None, pixels: bool) -> dict[str, Any]:
    if pixels and size is None:
        raise OptionError("boxes in pixels need image_width and image_height, which this table lacks.")
    corners = phrase.pixels(*size) if pixels and size else phrase.bbox
    width, height = size or (None, None)
    return {
        "phrase": phrase.phrase,
        **dict(zip(_CORNERS, corners, strict=True)),
        "confidence": phrase.confidence,
        "image_index": phrase.image_index,
        "image_width": width,
        "image_height": height,
    }


def labelled_images(
    frame: pd.DataFrame, images: pd.Series[Any], name: str | None, *, texts_do: bool
) -> Iterator[LabelledImage]:
    """The rows as exporters take them, in order; ``image`` is None where a row has none.

    Raises OptionError where there is nothing to write: no boxes, and if ``texts_do`` no captions or answers.
    """
    texts = text_names(frame) if texts_do else []
    column = grounding_name(frame, name) if texts else needed_boxes(frame, name)
    return _labelled(frame, images, column, texts)


def text_names(frame: pd.DataFrame) -> list[str]:
    """The columns of captions and answers: those that calls made, else those called so."""
    made = [n for n, call in noted(frame)["calls"].items() if call["task"] in ("caption", "ask")]
    return [n for n in made if n in frame.columns] or [n for n in ("caption", "answer") if n in frame.columns]


def _labelled(
    frame: pd.DataFrame, images: pd.Series[Any], column: str | None, texts: list[str]
) -> Iterator[LabelledImage]:
    for row, cell in enumerate(images):
        answers = {text: frame[text].iloc[row] for text in texts}
        yield LabelledImage(
            row=row,
            name=file_name(cell, row),
            image=None if is_null(cell) else cell,
            size=size_of(frame, row),
            phrases=phrases_of(frame[column].iloc[row]) if column else (),
            texts={text: str(value) for text, value in answers.items() if not is_null(value)},
            labelled=column is not None and not is_null(frame[column].iloc[row]),
        )


def file_name(cell: Any, row: int) -> str:
    """A path or URL (without credentials) as it is; a name by the row's number for an image in memory."""
    return f"row_{row:06}" if is_null(cell) else name_in(cell) or f"row_{row:06}.png"


def name_in(cell: Any) -> str | None:
    """The path or URL (without credentials) that a cell holds; None for anything else."""
    found = [item for item in expand(cell) if isinstance(item, Source)] if isinstance(cell, str) else []
    if found and found[0].kind in ("path", "url"):
        return found[0].label
    if isinstance(cell, Mapping) and cell.get("path"):
        return str(cell["path"])
    return str(cell) if isinstance(cell, (str, Path)) and len(str(cell)) < 1000 else None
