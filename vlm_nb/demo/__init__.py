"""The demo model that ships with the package: weights, sample images and the scenes that it knows.

`CARD.md` in this folder says what it was trained on, how well it does, and what it cannot do.
"""

from __future__ import annotations

import filecmp
import os
import pathlib
import shutil
from typing import TYPE_CHECKING, Any

from ..errors import OptionError

if TYPE_CHECKING:
    from .scenes import Scene, SceneObject, draw_scene

__all__ = ["Scene", "SceneObject", "copy_images", "draw_scene", "sample_images", "weights_path"]

_FOLDER = pathlib.Path(__file__).parent


def weights_path() -> pathlib.Path:
    """Folder that `from_pretrained` of model, tokenizer and image processor read."""
    return _FOLDER / "weights"


def sample_images() -> dict[str, pathlib.Path]:
    """Drawn sample images by file name, for example ``shapes.png``."""
    return {path.name: path for path in sorted((_FOLDER / "images").iterdir()) if path.is_file()}


def copy_images(folder: str | os.PathLike[str] = ".") -> list[pathlib.Path]:
    """Put the sample images into ``folder`` (the working folder) and return their paths there.

    What is there already stays. Raises OptionError, and copies nothing, where a name is another file's.
    """
    target = pathlib.Path(folder).expanduser()
    places = {sample: target / name for name, sample in sample_images().items()}
    for sample, place in places.items():
        if place.exists() and not (place.is_file() and filecmp.cmp(sample, place, shallow=False)):
            raise OptionError(f'{place} is another file; name a folder: copy_images("samples").')
    try:
        target.mkdir(parents=True, exist_ok=True)
        for sample, place in places.items():
            if not place.exists():
                shutil.copyfile(sample, place)
    except OSError as error:
        raise OptionError(f"cannot copy into {target}: {error.strerror or error}.") from None
    return list(places.values())


def __getattr__(name: str) -> Any:
    if name in ("Scene", "SceneObject", "draw_scene"):
        from . import scenes

        return getattr(scenes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
