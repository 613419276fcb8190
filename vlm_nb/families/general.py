"""Models that describe and answer but were not trained to ground: Gemma 3, Idefics3, SmolVLM, Mistral 3.

Known here so that quantisation spares their vision towers. ``ground`` works as for an unknown model: the
format is guessed from the text. Gemma 3 squashes every image to one square, which the family does for it; the
other processors map the whole image too (tiles, or a resize in proportion), so boxes relative to the image
stay right and their own resize is left on.
"""

from __future__ import annotations

from dataclasses import replace

from .base import Family
from .preparation import FixedSize, ImageLimits

_TOWERS = ("model.vision_tower", "model.multi_modal_projector")

GEMMA3 = Family(
    name="gemma3",
    model_types=("gemma3",),
    name_patterns=("gemma-3",),
    quantization_skips=_TOWERS,
    geometry=FixedSize((896, 896)),
    processor_kwargs={"do_resize": False},
)

MISTRAL3 = Family(
    name="mistral3",
    model_types=("mistral3",),
    name_patterns=("mistral-small-3",),
    quantization_skips=_TOWERS,
    limits=ImageLimits(max_pixels=1540 * 1540),
)

IDEFICS3 = replace(
    MISTRAL3,
    name="idefics3",
    model_types=("idefics3", "smolvlm"),
    name_patterns=("idefics3", "smolvlm"),
    quantization_skips=("model.vision_model", "model.connector"),
)
