"""The boxes and points that a JSON value holds: flat lists, corners, strings of numbers, dicts of corners."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .scan import Value
from .strings import numbers_in

CORNERS = (
    ("x_min", "y_min", "x_max", "y_max"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
)


def places_in(value: Value, size: int) -> Iterator[list[float]]:
    """Yield the boxes (``size`` 4) or points (``size`` 2) that a value holds.

    A flat list of ``size`` numbers is one, as are two corners ``[[x, y], [x, y]]``, a string of numbers, and
    a dict of corners; a list of these is several.
    """
    if isinstance(value, dict):
        corners = corners_in(value) if size == 4 else point_in(value)
        if corners:
            yield corners
    elif isinstance(value, str):
        found = numbers_in(value)
        if len(found) == size:
            yield found
    elif isinstance(value, list):
        yield from _places_in_list(value, size)


def _places_in_list(value: list[Value], size: int) -> Iterator[list[float]]:
    if all(isinstance(item, float) for item in value):
        if len(value) == size:
            yield [item for item in value if isinstance(item, float)]
    elif size == 4 and len(value) == 2 and all(_is_pair(item) for item in value):
        yield [item for pair in value if isinstance(pair, list) for item in pair if isinstance(item, float)]
    else:
        for item in value:
            if not isinstance(item, list) or all(isinstance(inner, float) for inner in item):
                yield from places_in(item, size)


def _is_pair(value: Value) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(item, float) for item in value)


def corners_in(fields: dict[str, Value]) -> list[float]:
    """Return the four corner values of ``{"x_min": …, …}`` by any of ``CORNERS``; empty where one lacks."""
    for names in CORNERS:
        numbers = _numbers(fields, names)
        if len(numbers) == 4:
            return numbers
    return []


def point_in(fields: dict[str, Value]) -> list[float]:
    """Return x and y of ``{"x": …, "y": …}``; empty where one lacks."""
    values = _numbers(fields, ("x", "y"))
    return values if len(values) == 2 else []


def _numbers(fields: dict[str, Value], names: Sequence[str]) -> list[float]:
    """Return the numbers under ``names``, those in quotes too; what is no number is left out."""
    values = (fields.get(name) for name in names)
    found = [
        numbers_in(value) if isinstance(value, str) else [value] for value in values if value is not None
    ]
    return [items[0] for items in found if len(items) == 1 and isinstance(items[0], float)]
