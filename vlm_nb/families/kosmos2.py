"""Kosmos-2: phrases with pairs of cells in a grid of 32 × 32.

Source: huggingface/transformers, docs/source/en/model_doc/kosmos-2.md ("<grounding> An image of",
"<grounding><phrase> …</phrase>"), models/kosmos2/processing_kosmos2.py. The image is squashed to a square.
After a phrase prompt the answer starts with the place, so its boxes carry no phrase of their own.
"""

from __future__ import annotations

from .base import Family
from .preparation import FixedSize

KOSMOS2 = Family(
    name="kosmos-2",
    model_types=("kosmos-2",),
    name_patterns=("kosmos-2", "kosmos2"),
    format="kosmos-2",
    caption_prompt="An image of",
    detect_prompt="<grounding> An image of",
    locate_prompt="<grounding><phrase> {phrase}</phrase>",
    quantization_skips=("vision_model", "image_to_text_projection"),
    geometry=FixedSize((224, 224)),
    processor_kwargs={"do_resize": False, "do_center_crop": False},
    chat=False,
    multi_image=False,
)
