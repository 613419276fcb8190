"""COCO object detection: https://cocodataset.org/#format-data ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..request import Size
from ..results import GroundedPhrase
from .base import LabelledImage, Place, class_names, corners, labelled_only, sizes_of, write_json


def to_coco(images: Iterable[LabelledImage], path: Place | None = None) -> dict[str, Any]:
    """Return a COCO dataset and write it to ``path``.

    ``bbox`` is [x_min, y_min, width, height] in pixels of the upright original image, as floats; images,
    annotations and categories count from 1; a confidence becomes ``score``. Rows whose grounding failed are
    left out; an image with nothing found has no annotations.
    """
    kept = labelled_only(images, "COCO")
    names = {name: number for number, name in enumerate(class_names(kept), 1)}
    content: dict[str, Any] = {
        "info": {"description": "boxes by vlm_nb"},
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name, "supercategory": ""} for name, number in names.items()],
    }
    for number, (image, size) in enumerate(sizes_of(kept), 1):
        content["images"].append(
            {"id": number, "file_name": image.name, "width": size[0], "height": size[1], "row": image.row}
        )
        for phrase in image.boxes():
            place = {"id": len(content["annotations"]) + 1, "image_id": number}
            content["annotations"].append({**place, **_annotation(phrase, names, size)})
    if path is not None:
        write_json(content, path)
    return content


def _annotation(phrase: GroundedPhrase, names: Mapping[str, int], size: Size) -> dict[str, Any]:
    """One box without its numbers in the file."""
    x_min, y_min, x_max, y_max = corners(phrase.bbox, size)
    width, height = x_max - x_min, y_max - y_min
    score = {} if phrase.confidence is None else {"score": phrase.confidence}
    return {
        "category_id": names[phrase.phrase],
        "bbox": [x_min, y_min, width, height],
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [[x_min, y_min, x_max, y_min, x_max, y_max, x_min, y_max]],
        **score,
    }
