"""Boxes to text, where the text is JSON or plain lists; the tagged formats write next to their readers."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .base import Mark, Writer


def plain_number(value: float) -> str:
    """Return a number as models write it: no exponent, no trailing zeros."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return text or "0"


def json_writer(box_key: str, point_key: str = "point_2d") -> Writer:
    """Return a writer of fenced JSON with the box under ``box_key``."""

    def write(marks: Sequence[Mark]) -> str:
        lines = []
        for mark in marks:
            key = box_key if len(mark.values) == 4 else point_key
            numbers = ", ".join(plain_number(v) for v in mark.values)
            label = json.dumps(mark.phrase, ensure_ascii=False)
            lines.append(f'\t{{"{key}": [{numbers}], "label": {label}}}')
        body = "[\n" + ",\n".join(lines) + "\n]" if lines else "[]"
        return f"```json\n{body}\n```"

    return write


def list_writer(marks: Sequence[Mark]) -> str:
    """Return one bare list a line, after its phrase: ``cat: [0.25, 0.3, 0.6, 0.8]``."""
    lines = []
    for mark in marks:
        numbers = f"[{', '.join(plain_number(v) for v in mark.values)}]"
        lines.append(f"{mark.phrase}: {numbers}" if mark.phrase else numbers)
    return "\n".join(lines)


def objects_writer(marks: Sequence[Mark]) -> str:
    """Return Moondream's ``{"objects": [{"x_min": 0.1, …}]}``; it has no place for a phrase."""
    names = ("x_min", "y_min", "x_max", "y_max")
    objects = [
        "{"
        + ", ".join(f'"{name}": {plain_number(v)}' for name, v in zip(names, mark.values, strict=False))
        + "}"
        for mark in marks
    ]
    return f'{{"objects": [{", ".join(objects)}]}}'
