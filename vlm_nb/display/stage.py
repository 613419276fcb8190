"""The preview of a prediction at the size at which it is shown."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from ..errors import SourceError

if TYPE_CHECKING:
    from ..results import Prediction

SCREEN_LIMIT = (560, 460)
"""The largest width and height in screen pixels."""
RASTER_SCALE = 1.75
"""Raster pixels per screen pixel: sharp on dense displays, small enough for a notebook."""
_SMALL = 320


@dataclass(frozen=True, slots=True)
class Stage:
    """``image`` is what is drawn on; ``screen`` its (width, height) in screen pixels."""

    image: Image.Image
    screen: tuple[int, int]


def preview_image(prediction: Prediction) -> Image.Image:
    """Decode the preview; raises SourceError where there is none."""
    if prediction.preview is None:
        raise SourceError("this prediction holds no image to draw on.", source=prediction.source)
    return Image.open(io.BytesIO(prediction.preview)).convert("RGB")


def stage(
    prediction: Prediction, limit: tuple[int, int] = SCREEN_LIMIT, scale: float = RASTER_SCALE
) -> Stage:
    """Return the preview resized so that it looks at most ``limit`` screen pixels large.

    Images smaller than 320 pixels are enlarged to that, so that labels are legible over them.
    """
    preview = preview_image(prediction)
    screen = screen_size(prediction.image_size or preview.size, limit)
    size = max(1, round(screen[0] * scale)), max(1, round(screen[1] * scale))
    tiny = max(preview.size) <= 64
    image = preview.resize(size, Image.Resampling.NEAREST if tiny else Image.Resampling.BICUBIC)
    return Stage(image, screen)


def screen_size(size: tuple[int, int], limit: tuple[int, int]) -> tuple[int, int]:
    """Fit (width, height) into ``limit``; small ones grow to a longer side of 320."""
    width, height = size
    ratio = min(limit[0] / width, limit[1] / height, max(1.0, _SMALL / max(size)))
    return max(1, round(width * ratio)), max(1, round(height * ratio))
