"""YOLO: https://docs.ultralytics.com/datasets/detect/ ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ..errors import SourceError
from ..sources import image_suffixes, load
from .base import LabelledImage, Place, class_names, labelled_only, target_folder

_ORIENTATION = 0x0112


def to_yolo(images: Iterable[LabelledImage], folder: Place, *, copy_images: bool = True) -> list[str]:
    """Write ``images/``, ``labels/`` and ``data.yaml`` into ``folder`` and return the class names, in order.

    A label line is ``class x_centre y_centre width height``, floats in 0..1 of the upright image. Files are
    copied as they are; turned photos, URLs, bytes and images in memory become upright PNGs. An image with
    nothing found gets an empty label file, a row whose grounding failed none.
    """
    target = target_folder(folder, "images", "labels")
    kept = labelled_only(images, "YOLO")
    names = class_names(kept)
    numbers = {name: number for number, name in enumerate(names)}
    taken: set[str] = set()
    for image in kept:
        stem = _stem(image, taken)
        try:
            if copy_images:
                _copy(image, target / "images", stem)
        except SourceError:
            continue  # unreadable by now: a label without its image would stop a training run
        lines = "".join(_line(numbers[phrase.phrase], phrase.bbox) for phrase in image.boxes())
        (target / "labels" / f"{stem}.txt").write_text(lines, encoding="utf-8")
    (target / "data.yaml").write_text(_yaml(target, names), encoding="utf-8")
    return names


def _line(number: int, bbox: tuple[float, float, float, float]) -> str:
    x_min, y_min, x_max, y_max = bbox
    values = ((x_min + x_max) / 2, (y_min + y_max) / 2, x_max - x_min, y_max - y_min)
    return f"{number} {' '.join(f'{value:.6f}' for value in values)}\n"


def _stem(image: LabelledImage, taken: set[str]) -> str:
    """A file name without suffix that no other row has."""
    stem = PurePosixPath(image.name.replace("\\", "/").split("?")[0]).stem or "image"
    stem = "".join(c if c.isalnum() or c in "-_. " else "_" for c in stem)[:100]
    chosen = stem if stem.lower() not in taken else f"{stem}_{image.row}"
    taken.add(chosen.lower())
    return chosen


def _copy(image: LabelledImage, folder: Path, stem: str) -> None:
    path = Path(image.image).expanduser() if isinstance(image.image, (str, Path)) else None
    if path is not None and path.suffix.lower() in image_suffixes() and _upright_file(path):
        shutil.copyfile(path, folder / f"{stem}{path.suffix.lower()}")
    else:
        load(image.image).save(folder / f"{stem}.png")


def _upright_file(path: Path) -> bool:
    """Whether a file's pixels lie as they are shown."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            return bool(opened.getexif().get(_ORIENTATION, 1) == 1)
    except OSError:
        return False


def _yaml(folder: Path, names: list[str]) -> str:
    """``data.yaml``; JSON strings are YAML strings too."""
    listed = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(names))
    return (
        f"path: {json.dumps(str(folder.resolve()))}\ntrain: images\nval: images\nnames:\n{listed or '  {}'}"
    )
