"""supervision: https://supervision.roboflow.com/ ."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import extras
from ..errors import MissingDependency
from .base import LabelledImage, class_names, corners


def to_supervision(images: Iterable[LabelledImage]) -> list[Any]:
    """Return one ``supervision.Detections`` for each row, empty where there are no boxes.

    ``xyxy`` is (n, 4) floats, (x_min, y_min, x_max, y_max) in pixels of the upright original image;
    ``class_id`` numbers the phrases of all rows, sorted; ``data["class_name"]`` holds them. ``confidence`` is
    None where no box of any row has one; else every row has it (``Detections.merge`` asks for that), NaN for
    the boxes without. Raises MissingDependency without supervision.
    """
    try:
        import numpy as np
        import supervision as sv
    except ImportError:
        raise MissingDependency(f"to_supervision needs supervision: {extras.command('export')}") from None
    rows = list(images)
    numbers = {name: number for number, name in enumerate(class_names(rows))}
    scored = any(box.confidence is not None for image in rows for box in image.boxes())

    def detections(image: LabelledImage) -> Any:
        boxes = image.boxes()
        if not boxes:
            return sv.Detections.empty()
        size = image.measured()
        scores = np.array([box.confidence for box in boxes], dtype=np.float32)  # None becomes NaN
        return sv.Detections(
            xyxy=np.array([corners(box.bbox, size) for box in boxes], dtype=np.float32),
            class_id=np.array([numbers[box.phrase] for box in boxes]),
            confidence=scores if scored else None,
            data={"class_name": np.array([box.phrase for box in boxes])},
        )

    return [detections(image) for image in rows]
