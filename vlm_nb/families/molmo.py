"""Molmo and Molmo2: points in XML; Molmo in percent, Molmo2 in 0..1000 with the image's number.

Sources: allenai/molmo, olmo/data/data_formatter.py; allenai/molmo2, olmo/preprocessing/data_formatter.py
("Point to every {label}", "There are none.") and point_formatter.py. Molmo needs its own code: for use
through servers. Both tile the whole image, so coordinates relative to it stay right.
"""

from __future__ import annotations

from dataclasses import replace

from .base import Family
from .preparation import ImageLimits

MOLMO = Family(
    name="molmo",
    model_types=("molmo",),
    name_patterns=("molmo",),
    format="molmo",
    detect_prompt="Point to every object",
    locate_prompt="Point to every {phrase}",
    limits=ImageLimits(max_pixels=2048 * 2048),
    in_transformers=False,
    notes="Answers with points: zero-area boxes.",
)

MOLMO2 = replace(
    MOLMO,
    name="molmo2",
    model_types=("molmo2",),
    name_patterns=("molmo2", "molmo-2"),
    format="molmo2",
    quantization_skips=("model.vision_tower", "model.multi_modal_projector"),
    in_transformers=True,
)
