"""The format of a text from an unknown model: from its markup, and from the size of its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from ..results import Frame
from .formats import FORMATS
from .objects import read_objects

FALLBACK = "qwen3_vl"
"""JSON and bare lists in 0..1000, which most recent families write."""


def guess(text: str, frames: Sequence[Frame], asked: bool) -> tuple[str, str]:
    """Return (format name, note on why). The note is empty where the text shows no boxes at all."""
    signs = {spec.name: spec.sign.search(text) for spec in FORMATS.values() if spec.sign}
    shown = [name for name, sign in signs.items() if sign]
    if shown and shown[0] != FALLBACK:
        return shown[0], f"unknown model: its answer looks like the {shown[0]} format"
    numbers = [v for mark in read_objects(text, asked).marks for v in mark.values]
    if not numbers:
        return FALLBACK, ""
    name, why = _by_size(max(numbers), frames)
    return name, f"unknown model: {why}"


def _by_size(largest: float, frames: Sequence[Frame]) -> tuple[str, str]:
    """Tell fractions, 0..1000 and pixels apart by the largest number; 0..1000 where it could be either."""
    if largest <= 1.0:
        return "llava", "no number above 1, so its boxes are read as fractions of the image"
    if largest > 1000 and frames and largest <= max(frames[0].seen):
        return "qwen2_5_vl", "numbers above 1000, so its boxes are read as pixels"
    return FALLBACK, "its boxes are read as 0..1000 (they could be pixels: check one by eye)"
