"""Which column holds the images, and what a cell is."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from ..errors import OptionError
from ..sources import image_suffixes
from ..sources.pixels import is_array

_SAMPLE = 8
_NAMES = ("image", "images", "img", "picture", "photo")
_OTHER_NAMES = (
    *(
        "path",
        "image_path",
        "img_path",
        "image_file",
        "file",
        "filename",
        "file_name",
        "filepath",
        "file_path",
    ),
    *("url", "image_url", "img_url", "uri", "frame", "thumbnail", "pixels", "image_bytes", "bytes"),
)
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_URL = re.compile(r"https?://", re.IGNORECASE)


def whole(name: str, value: Any, least: int) -> int:
    """Return ``value`` if it is a whole number of at least ``least``. Raises OptionError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < least:
        raise OptionError(f"{name}={value!r}: expected a whole number, {least} or more.")
    return int(value)


def is_null(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, NA, NaT. An array never does."""
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    return isinstance(value, float) and math.isnan(value)


def image_column(frame: pd.DataFrame, asked: Hashable | None = None) -> pd.Series[Any]:
    """Return the column of images: the one asked for, or found by what it holds and how it is called.

    Raises OptionError naming the candidates where it is not clear.
    """
    if asked is not None:
        return _named(frame, asked)
    holding = [name for name in frame.columns if _holds_images(frame, name)]
    if len(holding) == 1:
        return _named(frame, holding[0])
    for names in (_NAMES, _OTHER_NAMES):
        called = [c for c in holding or frame.columns if str(c).lower() in names and _can_hold(frame, c)]
        if len(called) == 1:
            return _named(frame, called[0])
        if called and not holding:
            holding = called
    raise OptionError(_unclear(frame, holding))


def _unclear(frame: pd.DataFrame, candidates: list[Any]) -> str:
    if candidates:
        listed = ", ".join(repr(name) for name in candidates)
        return f"several columns may hold the images: {listed}; choose one with image={candidates[0]!r}."
    listed = ", ".join(f"{name!r} ({frame.dtypes.iloc[i]})" for i, name in enumerate(frame.columns[:20]))
    return (
        f"no column of images found among {listed or 'no columns at all'}; cells may be paths, URLs, bytes, "
        "PIL images, arrays or data URIs. Name the column with image=..."
    )


def _named(frame: pd.DataFrame, name: Hashable) -> pd.Series[Any]:
    found = _columns_called(frame, name)
    if len(found) == 1:
        return found[0]
    if found:
        raise OptionError(f"{len(found)} columns are called {name!r}; rename them, so that one is meant.")
    raise OptionError(f"no column is called {name!r}; there are: {', '.join(map(repr, frame.columns))}.")


def _columns_called(frame: pd.DataFrame, name: Hashable) -> list[pd.Series[Any]]:
    places = [i for i, column in enumerate(frame.columns) if column == name]
    return [frame.iloc[:, place] for place in places]


def _can_hold(frame: pd.DataFrame, name: Hashable) -> bool:
    """Whether a column's type can hold images at all: numbers and dates cannot, unless all are null."""
    return any(_is_open(_kind_of(column)) or column.isna().all() for column in _columns_called(frame, name))


def _is_open(kind: Any) -> bool:
    """Whether a column of that type may hold paths, bytes or objects."""
    return pd.api.types.is_object_dtype(kind) or pd.api.types.is_string_dtype(kind)


def _kind_of(column: pd.Series[Any]) -> Any:
    """A column's type; of a categorical one, that of its categories."""
    kind: Any = column.dtype
    return kind.categories.dtype if isinstance(kind, pd.CategoricalDtype) else kind


def _holds_images(frame: pd.DataFrame, name: Hashable) -> bool:
    """Whether most of the first cells look like images."""
    if not _can_hold(frame, name):
        return False
    column = _columns_called(frame, name)[0]
    cells = [cell for cell in column.iloc[:1000] if not is_null(cell)][:_SAMPLE]
    return bool(cells) and 2 * sum(looks_like_image(cell) for cell in cells) > len(cells)


def looks_like_image(cell: Any) -> bool:
    """Whether a cell is an image or names one, going by its looks: nothing is opened."""
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return bytes(cell[:8]).startswith(_MAGIC) or b"ftyp" in bytes(cell[:12])
    if isinstance(cell, Mapping):
        return bool({"bytes", "path"} & set(cell))
    if isinstance(cell, str) or hasattr(cell, "__fspath__"):
        return _names_image(str(cell))
    return is_array(cell) or type(cell).__module__.startswith("PIL.")


def _names_image(text: str) -> bool:
    if text.startswith("data:image/"):
        return True
    bare = re.split("[?#]", text, maxsplit=1)[0] if _URL.match(text) else text
    return len(text) < 4096 and bare.strip().lower().endswith(image_suffixes())
