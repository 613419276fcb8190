"""Any model that no other file knows: it captions and answers; ``ground`` reads what its text shows."""

from __future__ import annotations

from .base import Family
from .preparation import ImageLimits

DEFAULT = Family(
    name="default",
    format=None,
    detect_prompt="Locate every object in the image and output the bbox coordinates in JSON format.",
    locate_prompt="Locate every {phrase} in the image and output the bbox coordinates in JSON format.",
    limits=ImageLimits(max_pixels=2048 * 2048),
    notes="The processor keeps its own resize; the grounding format is guessed from the text.",
)
