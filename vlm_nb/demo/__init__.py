"""The demo model that ships with the package: weights, sample images and the scenes that it knows.

`CARD.md` in this folder says what it was trained on, how well it does, and what it cannot do.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .scenes import Scene, SceneObject, draw_scene

__all__ = ["Scene", "SceneObject", "draw_scene", "sample_images", "weights_path"]

_FOLDER = pathlib.Path(__file__).parent


def weights_path() -> pathlib.Path:
    """Folder that `from_pretrained` of model, tokenizer and image processor read."""
    return _FOLDER / "weights"


def sample_images() -> dict[str, pathlib.Path]:
    """Drawn sample images by file name, for example ``shapes.png``."""
    return {path.name: path for path in sorted((_FOLDER / "images").iterdir()) if path.is_file()}


def __getattr__(name: str) -> Any:
    if name in ("Scene", "SceneObject", "draw_scene"):
        from . import scenes

        return getattr(scenes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
