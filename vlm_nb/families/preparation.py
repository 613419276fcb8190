"""How an original image becomes the image that the model sees: pure geometry, then one resize.

A ``Geometry`` says where the original will lie (a ``Frame``) from its size alone, so that boxes can be
placed without the image; ``fit`` then makes the picture. Sizes are (width, height) in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..request import Size
from ..results import Frame

if TYPE_CHECKING:
    from PIL.Image import Image

FILL = (122, 116, 104)
"""Padding colour: the mean that CLIP-type processors subtract, so padding becomes zero."""
MAX_RATIO = 100
"""Longer images are padded to this ratio of sides: Qwen's own resize refuses ratios above 200, and rounding
to whole patches can raise a ratio by half."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """Bounds on the prepared image, in pixels of area; None leaves the family's own bound.

    ``patch`` is the step that both sides must be a multiple of (patch size × merge size), read from the
    checkpoint's processor where it says so. ``size`` is the fixed (width, height) of models that take one.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None
    patch: int | None = None
    size: Size | None = None


class Geometry(Protocol):
    """One way to place an image; ``checkpoint`` says which of a checkpoint's limits it goes by."""

    def frame(self, size: Size, limits: ImageLimits) -> Frame:
        """Return where an original of ``size`` (width, height) lies in what the model sees."""

    def checkpoint(self, found: ImageLimits) -> ImageLimits:
        """Return ``found`` (from the checkpoint's image processor) as bounds on one prepared image."""


@dataclass(frozen=True, slots=True)
class Shrink:
    """Leave the image as it is, unless it has more than ``max_pixels`` pixels; the processor does the rest.

    For processors whose own geometry maps the whole image (tiling, squashing), so that boxes relative to
    the image stay right.
    """

    def frame(self, size: Size, limits: ImageLimits) -> Frame:
        """Return the frame of the image, shrunk in proportion if it is too large."""
        wide, high = size
        if limits.max_pixels is None or wide * high <= limits.max_pixels:
            return Frame(size, size)
        scale = math.sqrt(limits.max_pixels / (wide * high))
        return Frame(size, (max(1, int(wide * scale)), max(1, int(high * scale))))

    def checkpoint(self, found: ImageLimits) -> ImageLimits:
        """Nothing to go by: such processors take any size."""
        return ImageLimits()


@dataclass(frozen=True, slots=True)
class Tiles(Shrink):
    """For processors that cut any image into tiles of one size: ``max_pixels`` bounds those, too.

    ``tile`` is (width, height) of a tile where the checkpoint does not say.
    """

    tile: Size = (448, 448)

    def checkpoint(self, found: ImageLimits) -> ImageLimits:
        """Return the area of all tiles, and the size of one."""
        return ImageLimits(max_pixels=found.max_pixels, size=found.size)

    def most(self, limits: ImageLimits) -> int | None:
        """Return how many tiles ``max_pixels`` allows; one always."""
        wide, high = limits.size or self.tile
        return None if limits.max_pixels is None else max(1, limits.max_pixels // (wide * high))


@dataclass(frozen=True, slots=True)
class SmartResize:
    """Qwen's resize: both sides multiples of ``patch``, area within limits, ratio kept as far as possible.

    An image longer than ``MAX_RATIO`` (or than the allowed number of patches in a row) is padded first.
    ``frames`` divides the checkpoint's limits where they count an image as several video frames.
    """

    patch: int = 28
    frames: int = 1

    def frame(self, size: Size, limits: ImageLimits) -> Frame:
        """Return the frame of the resized image; ``content`` is set where it was padded."""
        patch = limits.patch or self.patch
        least, most = limits.min_pixels or patch * patch, limits.max_pixels or 1280 * patch * patch
        outer = padded_size(size, max(1, min(MAX_RATIO, most // patch**2)))
        seen = smart_resize(outer, patch, least, most)
        return Frame(size, seen, None if outer == size else centred(size, seen))

    def checkpoint(self, found: ImageLimits) -> ImageLimits:
        """Return the areas and the patch, counted for one image."""
        least, most = found.min_pixels, found.max_pixels
        return ImageLimits(
            min_pixels=least // self.frames if least else None,
            max_pixels=most // self.frames if most else None,
            patch=found.patch,
        )


@dataclass(frozen=True, slots=True)
class FixedSize:
    """One size for every image: squashed to it, or with ``pad`` placed in its middle in proportion.

    ``from_checkpoint`` takes the size of the checkpoint's processor in place of ``default``.
    """

    default: Size
    pad: bool = False
    from_checkpoint: bool = True

    def frame(self, size: Size, limits: ImageLimits) -> Frame:
        """Return the frame: all of the fixed size, or the centred rectangle in it."""
        seen = limits.size or self.default
        return Frame(size, seen, centred(size, seen) if self.pad else None)

    def checkpoint(self, found: ImageLimits) -> ImageLimits:
        """Return the size, where the processor's size is the model's."""
        return ImageLimits(size=found.size if self.from_checkpoint else None)


def smart_resize(size: Size, patch: int, min_pixels: int, max_pixels: int) -> Size:
    """Return (width, height) in multiples of ``patch`` with an area within the limits.

    The rule of huggingface/transformers, models/qwen2_vl/image_processing_qwen2_vl.py:
    round each side to the patch; if the area is out of bounds, scale by the square root of the excess and
    round down (or up). Side by side with the processor in ``tests/test_families.py``.
    """
    wide, high = size
    area = _steps(wide, patch) * _steps(high, patch)
    if area > max_pixels:
        scale = math.sqrt(wide * high / max_pixels)
        return max(patch, int(wide / scale / patch) * patch), max(patch, int(high / scale / patch) * patch)
    if area < min_pixels:
        scale = math.sqrt(min_pixels / (wide * high))
        return math.ceil(wide * scale / patch) * patch, math.ceil(high * scale / patch) * patch
    return _steps(wide, patch), _steps(high, patch)


def _steps(side: int, patch: int) -> int:
    return round(side / patch) * patch


def padded_size(size: Size, ratio: int) -> Size:
    """Return ``size``, its short side lengthened where the image is longer than ``ratio``."""
    wide, high = size
    return max(wide, math.ceil(high / ratio)), max(high, math.ceil(wide / ratio))


def centred(size: Size, seen: Size) -> tuple[float, float, float, float]:
    """Return the (x_min, y_min, x_max, y_max) pixels of ``seen`` that ``size`` fills, centred."""
    scale = min(seen[0] / size[0], seen[1] / size[1])
    wide, high = (min(s, max(1, round(o * scale))) for o, s in zip(size, seen, strict=True))
    left, top = (seen[0] - wide) // 2, (seen[1] - high) // 2
    return float(left), float(top), float(left + wide), float(top + high)


def fit(image: Image, frame: Frame) -> Image:
    """Return ``image`` as ``frame`` places it: one bicubic resize, onto a plain ground where padded."""
    from PIL import Image

    x0, y0, x1, y1 = (int(v) for v in frame.content or (0, 0, *frame.seen))
    size = (x1 - x0, y1 - y0)
    placed = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
    if placed.size == frame.seen:
        return placed
    canvas = Image.new("RGB", frame.seen, FILL)
    canvas.paste(placed, (x0, y0))
    return canvas


def shrink_to(image: Image, max_pixels: int | None) -> tuple[Image, Frame]:
    """Return ``image`` with at most ``max_pixels`` pixels, and its frame."""
    frame = Shrink().frame(image.size, ImageLimits(max_pixels=max_pixels))
    return fit(image, frame), frame
