"""PaliGemma and PaliGemma 2: location tokens in y, x order, 1024 bins.

Sources: google-research/big_vision, configs/proj/paligemma/README.md ("detect {things}", "caption en").
No chat template: the prompt is ``<image>`` and the task, and the processor adds the rest. The image is
squashed to one square size. No prompt for "everything" is published: "detect object" asks for that word.
"""

from __future__ import annotations

from .base import Family
from .preparation import FixedSize

PALIGEMMA = Family(
    name="paligemma",
    model_types=("paligemma", "paligemma2"),
    name_patterns=("paligemma",),
    format="paligemma",
    caption_prompt="caption en",
    detect_prompt="detect object",
    locate_prompt="detect {phrase}",
    quantization_skips=("model.vision_tower", "model.multi_modal_projector"),
    geometry=FixedSize((224, 224)),
    processor_kwargs={"do_resize": False},
    chat=False,
    image_placeholder="<image>",
    multi_image=False,
)
