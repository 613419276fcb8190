"""Qwen2-VL: phrases and corner pairs between special tokens, 0..1000.

Sources: Qwen2-VL technical report, arXiv 2409.12191 (format); README.md of the repository ("Describe this
image."); QwenLM/Qwen3-VL issue 342 (a user's finding that "Find" and "with grounding" bring boxes: the
authors publish no wording). Geometry as Qwen2.5-VL.
"""

from __future__ import annotations

from .base import Family
from .preparation import ImageLimits, SmartResize

QWEN2_VL = Family(
    name="qwen2_vl",
    model_types=("qwen2_vl",),
    name_patterns=("qwen2-vl", "qwen2_vl", "qvq-72b"),
    format="qwen2_vl",
    detect_prompt="Describe this image with grounding.",
    locate_prompt="Find {phrase} in the image with grounding.",
    keep_special_tokens=True,
    quantization_skips=("model.visual",),
    limits=ImageLimits(min_pixels=56 * 56, max_pixels=1280 * 28 * 28, patch=28),
    geometry=SmartResize(),
    processor_kwargs={"do_resize": False},
)
