"""LLaVA 1.5 and LLaVA-NeXT: bare lists in 0..1 of the square that the image was padded to.

Sources: haotian-liu/LLaVA, the training data and docs of version 1.5 ("Please provide the bounding box
coordinate of the region this sentence describes: …"), llava/mm_utils.py (padding to a square with the mean
colour). Transformers' processor crops the centre instead, so the family pads and turns that off. LLaVA-NeXT
keeps its processor's tiling, which covers the whole of a square.
No wording to find everything is published; the one here is ours.
"""

from __future__ import annotations

from dataclasses import replace

from .base import Family
from .preparation import FixedSize

LLAVA = Family(
    name="llava",
    model_types=("llava", "vipllava"),
    name_patterns=("llava-1.5", "llava-v1.5", "llava_1.5", "bakllava"),
    format="llava",
    caption_prompt="Describe the following image.",
    detect_prompt="Please provide the bounding box coordinate of every object in the image.",
    locate_prompt=(
        "Please provide the bounding box coordinate of the region this sentence describes: {phrase}"
    ),
    quantization_skips=("model.vision_tower", "model.multi_modal_projector"),
    geometry=FixedSize((336, 336), pad=True),
    processor_kwargs={"do_resize": False, "do_center_crop": False},
    multi_image=False,
)

LLAVA_NEXT = replace(
    LLAVA,
    name="llava_next",
    model_types=("llava_next",),
    name_patterns=("llava-v1.6", "llava-next", "llava_next", "llava-1.6"),
    geometry=FixedSize((672, 672), pad=True, from_checkpoint=False),
    processor_kwargs={},
    notes="The square is 672 pixels wide: four tiles and one overview.",
)
