"""Qwen2.5-VL: boxes as JSON, in pixels of the resized image.

Sources: prompts from QwenLM/Qwen2.5-VL, cookbooks/spatial_understanding.ipynb ("Locate every … output the
bbox coordinates in JSON format"), README.md ("Describe this image."); geometry from
huggingface/transformers, models/qwen2_vl/image_processing_qwen2_vl.py.
"""

from __future__ import annotations

from .base import Family
from .preparation import ImageLimits, SmartResize

QWEN2_5_VL = Family(
    name="qwen2_5_vl",
    model_types=("qwen2_5_vl",),
    name_patterns=("qwen2.5-vl", "qwen2_5_vl", "qwen2-5-vl", "qwen25-vl"),
    format="qwen2_5_vl",
    caption_prompt="Describe this image.",
    detect_prompt="Locate every object in the image and output the bbox coordinates in JSON format.",
    locate_prompt="Locate every {phrase} in the image and output the bbox coordinates in JSON format.",
    quantization_skips=("model.visual",),
    limits=ImageLimits(min_pixels=56 * 56, max_pixels=1280 * 28 * 28, patch=28),
    geometry=SmartResize(),
    processor_kwargs={"do_resize": False},
    notes="max_pixels 1,003,520: a 12-megapixel photo costs about 1,250 image tokens.",
)
