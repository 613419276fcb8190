"""MiniCPM-V: phrases and bare numbers in tags, 0..1000. Older ones need their own code: use a server.

Source: OpenBMB/MiniCPM-V, issue 982 (an author gives prompt and format). No wording to find everything is
published; the one here is InternVL's, whose data it shares.
"""

from __future__ import annotations

from .base import Family
from .preparation import ImageLimits

MINICPMV = Family(
    name="minicpmv",
    model_types=("minicpmv", "minicpmo", "minicpmv4_6", "minicpmv4_7"),
    name_patterns=("minicpm-v", "minicpm_v", "minicpmv", "minicpm-o"),
    format="minicpmv",
    detect_prompt="Please detect and label all objects in the following image and mark their positions.",
    locate_prompt=(
        "Please provide the bounding box coordinate of the region this sentence describes: "
        "<ref>{phrase}</ref>"
    ),
    keep_special_tokens=True,
    quantization_skips=("model.vision_tower", "model.merger"),
    limits=ImageLimits(max_pixels=9 * 448 * 448),
)
