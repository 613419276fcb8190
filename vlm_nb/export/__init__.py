"""Boxes to labelling and training tools: COCO, YOLO, Label Studio, supervision, JSON Lines.

``df.vlm.to_coco(...)`` and its siblings call these with a table's rows; ``from_outcomes`` takes what a list
call returned. All boxes are those of the upright image: a tool that ignores a photo's EXIF orientation must
be given upright copies (``to_yolo`` makes them).
"""

from .base import LabelledImage, from_outcomes
from .coco import to_coco
from .detections import to_supervision
from .jsonl import to_jsonl
from .label_studio import to_label_studio
from .yolo import to_yolo

__all__ = [
    "LabelledImage",
    "from_outcomes",
    "to_coco",
    "to_jsonl",
    "to_label_studio",
    "to_supervision",
    "to_yolo",
]
