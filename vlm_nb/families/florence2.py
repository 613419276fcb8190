"""Florence-2: task tokens in, location tokens out, 1000 bins, bin centres.

Source: huggingface/transformers, models/florence2/processing_florence2.py (task tokens, bins). It answers
tasks, not free questions. The image is squashed to one square; answers are decoded with special tokens.
"""

from __future__ import annotations

from .base import Family
from .preparation import FixedSize

FLORENCE2 = Family(
    name="florence2",
    model_types=("florence2",),
    name_patterns=("florence-2", "florence2"),
    format="florence2",
    caption_prompt="<DETAILED_CAPTION>",
    detect_prompt="<OD>",
    locate_prompt="<CAPTION_TO_PHRASE_GROUNDING>{phrase}",
    keep_special_tokens=True,
    quantization_skips=("model.vision_tower", "model.multi_modal_projector"),
    geometry=FixedSize((768, 768)),
    processor_kwargs={"do_resize": False, "do_center_crop": False},
    chat=False,
    multi_image=False,
    version=2,
)
