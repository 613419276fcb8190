"""Images for the browser: small previews, larger ones, sharp crops, thumbnails. All JPEG, all bounded."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from ..results import BBox

SMALL_SIDE, SMALL_BYTES = 640, 90_000
LARGE_SIDE, LARGE_BYTES = 1536, 900_000
THUMB_SIDE, THUMB_BYTES = 96, 8_000
_QUALITIES = (95, 88, 80, 70, 55, 40, 25)
_FINE = 95  # small drawings: full colour resolution, or their edges bleed


def jpeg(image: Image.Image, side: int, limit: int, best: int = _FINE) -> bytes:
    """Encode ``image`` with no side over ``side`` pixels in at most ``limit`` bytes."""
    small = shrunk(image, side)
    while True:
        for quality in (q for q in _QUALITIES if q <= best):
            data = _encode(small, quality)
            if len(data) <= limit:
                return data
        small = shrunk(small, max(16, max(small.size) * 3 // 4))


def small(image: Image.Image) -> bytes:
    """The preview that is kept with the widget."""
    return jpeg(image, SMALL_SIDE, SMALL_BYTES)


def large(image: Image.Image) -> bytes:
    """The preview that a view asks for."""
    return jpeg(image, LARGE_SIDE, LARGE_BYTES, best=88)


def thumb(image: Image.Image) -> bytes:
    """A thumbnail."""
    return jpeg(image, THUMB_SIDE, THUMB_BYTES)


def crop(image: Image.Image, region: BBox, side: int) -> tuple[bytes, BBox]:
    """Cut ``region`` (0..1 of the upright image) and return its JPEG and the region that it really covers.

    The cut is on whole pixels, outwards; no side of the JPEG is over ``side`` pixels.
    """
    rect = pixel_rect(region, image.size)
    width, height = image.size
    covered = (rect[0] / width, rect[1] / height, rect[2] / width, rect[3] / height)
    return jpeg(image.crop(rect), min(side, LARGE_SIDE), LARGE_BYTES, best=88), covered


def pixel_rect(region: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Whole pixels (left, top, right, bottom) that cover ``region`` (0..1), at least one each way."""
    width, height = size
    left = min(int(region[0] * width + 1e-6), width - 1)
    top = min(int(region[1] * height + 1e-6), height - 1)
    right = max(left + 1, min(width, _ceil(region[2] * width)))
    bottom = max(top + 1, min(height, _ceil(region[3] * height)))
    return left, top, right, bottom


def _ceil(value: float) -> int:
    return -int(-(value - 1e-6) // 1)


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """Return ``image`` with its longer side at most ``side`` pixels."""
    longest = max(image.size)
    if longest <= side:
        return image
    size = (max(1, round(image.width * side / longest)), max(1, round(image.height * side / longest)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _encode(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, subsampling=0 if quality >= _FINE else 2)
    return stream.getvalue()
