"""InternVL 2.5, 3 and 3.5: phrases and nested lists in tags, 0..1000 of the original image.

Sources: OpenGVLab/InternVL documentation, get_started/chat_data_format ("Please provide the bounding box
coordinate of the region this sentence describes: <ref>…</ref>", "Please detect and label all objects in the
following image and mark their positions."), README.md ("Please describe the image shortly."). The tags are
special tokens, so answers are decoded with them.

The processor cuts the image into tiles that cover all of it, stretched to a grid, plus a thumbnail: boxes
relative to the whole image stay right, so its own resize is left on. It makes as many tiles as the shape of
the image wants, not its size, so ``max_pixels`` is handed on as the number of tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Family
from .preparation import ImageLimits, Tiles

_TILES = Tiles((448, 448))


class TiledFamily(Family):
    """A family whose processor takes the number of tiles."""

    __slots__ = ()

    def processor_options(self, limits: ImageLimits | None = None) -> Mapping[str, Any]:
        """Return the most tiles that ``max_pixels`` allows."""
        most = _TILES.most(self.merged_limits(limits))
        return {**self.processor_kwargs, **({} if most is None else {"max_patches": most})}


INTERNVL = TiledFamily(
    name="internvl",
    model_types=("internvl", "internvl_chat"),
    name_patterns=("internvl",),
    format="internvl",
    caption_prompt="Please describe the image shortly.",
    detect_prompt="Please detect and label all objects in the following image and mark their positions.",
    locate_prompt=(
        "Please provide the bounding box coordinate of the region this sentence describes: "
        "<ref>{phrase}</ref>"
    ),
    keep_special_tokens=True,
    quantization_skips=("model.vision_tower", "model.multi_modal_projector"),
    limits=ImageLimits(max_pixels=12 * 448 * 448),
    geometry=_TILES,
    version=2,
    notes="An image costs 256 tokens a tile, and one tile more for the whole of it.",
)
