"""JSON Lines: one object a row."""

from __future__ import annotations

import json
from collections.abc import Iterable

from .base import LabelledImage, Place, target_file


def to_jsonl(images: Iterable[LabelledImage], path: Place) -> int:
    """Write one line for each row and return how many.

    A line has ``row``, ``image``, ``width`` and ``height`` in pixels (null where they are not known), the
    captions and answers by name, and ``boxes`` (null where no grounding succeeded): dicts with ``phrase`` and
    ``bbox`` = [x_min, y_min, x_max, y_max] in 0..1 of the upright original image.
    """
    target = target_file(path)
    count = 0
    with target.open("w", encoding="utf-8") as stream:
        for image in images:
            width, height = image.size or (None, None)
            boxes = [phrase.to_dict() for phrase in image.phrases] if image.labelled else None
            line = {"row": image.row, "image": image.name, "width": width, "height": height}
            stream.write(json.dumps(line | image.texts | {"boxes": boxes}, ensure_ascii=False) + "\n")
            count += 1
    return count
