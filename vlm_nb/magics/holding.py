"""Which variables hold images or tables of them; imports none of the packages that they come from."""

from __future__ import annotations

import sys
from typing import Any

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif"),
    *(".tiff", ".webp", ".avif", ".heic", ".heif"),
)
"""Lower-case suffixes of files that completion offers and that a second image is recognised by."""
_TYPES = (
    ("PIL.Image", "Image"),
    ("numpy", "ndarray"),
    ("torch", "Tensor"),
    ("pandas", "DataFrame"),
    ("pandas", "Series"),
)


def holds_images(value: Any) -> bool:
    """Whether ``value`` is an image, an array, a tensor, a table, or a list that starts with an image."""
    if isinstance(value, (list, tuple)):
        return bool(value) and holds_images(value[0])
    found = (getattr(sys.modules.get(module), name, None) for module, name in _TYPES)
    return isinstance(value, tuple(kind for kind in found if kind is not None))
