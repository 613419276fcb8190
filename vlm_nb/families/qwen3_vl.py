"""Qwen3-VL, its mixture-of-experts sibling, and Qwen3.5: JSON boxes in 0..1000.

Sources: QwenLM/Qwen3-VL, cookbooks/2d_grounding.ipynb (prompts and space), README.md ("Describe this
image."); geometry from huggingface/transformers, models/qwen2_vl, with steps of 32 pixels.
"""

from __future__ import annotations

from dataclasses import replace

from .base import Family
from .preparation import ImageLimits, SmartResize

QWEN3_VL = Family(
    name="qwen3_vl",
    model_types=("qwen3_vl", "qwen3_vl_moe"),
    name_patterns=("qwen3-vl", "qwen3_vl", "cosmos-reason2"),
    format="qwen3_vl",
    detect_prompt="Locate every object in the image. Report bbox coordinates in JSON format.",
    locate_prompt=(
        'Locate every instance that belongs to the following categories: "{phrase}". '
        "Report bbox coordinates in JSON format."
    ),
    quantization_skips=("model.visual",),
    limits=ImageLimits(min_pixels=64 * 64, max_pixels=1280 * 32 * 32, patch=32),
    geometry=SmartResize(patch=32),
    processor_kwargs={"do_resize": False},
)

QWEN3_5 = replace(
    QWEN3_VL,
    name="qwen3_5",
    model_types=("qwen3_5", "qwen3_5_moe"),
    name_patterns=("qwen3.5", "qwen3_5", "qwen3-5"),
)
