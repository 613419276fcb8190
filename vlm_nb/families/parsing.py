"""``parse_grounding``: the family parsers for text that came from elsewhere."""

from __future__ import annotations

from ..errors import OptionError
from ..grounding import Grounding
from ..request import Size
from ..results import Frame
from . import Family, ImageLimits, known_family


def parse_grounding(
    text: str, model_type: str, *, image_size: Size, input_size: Size | None = None, asked: bool = True
) -> Grounding:
    """Read the boxes in ``text`` as a model of ``model_type`` writes them.

    ``image_size`` is (width, height) in pixels of the upright original image; boxes come back as
    (x_min, y_min, x_max, y_max) in 0..1 of it. ``input_size`` is (width, height) of the image that the model
    saw, padding included where the family pads to that size; None means what this package's own preparation
    makes of an image of ``image_size`` with the family's default limits. ``asked=False`` reads markup only,
    not bare number lists. Raises OptionError for an unknown ``model_type`` (naming the nearest), a size
    that is not two positive numbers, or a text that is no str; never for what a text holds.
    """
    family = known_family(model_type)
    original = _checked("image_size", image_size)
    frame = family.frame_for(original)
    if input_size is not None:
        frame = _seen_at(family, original, _checked("input_size", input_size))
    return family.parse(text, [frame], asked=asked)


def _seen_at(family: Family, original: Size, seen: Size) -> Frame:
    """Return the family's own frame of that size (padded, if it pads), else the whole image resized to it."""
    for frame in (family.frame_for(original), family.frame_for(original, ImageLimits(size=seen))):
        if frame.seen == seen:
            return frame
    return Frame(original, seen)


def _checked(name: str, size: Size) -> Size:
    try:
        wide, high = (int(side) for side in size)
    except (TypeError, ValueError, OverflowError):
        wide = high = 0
    if wide <= 0 or high <= 0:
        raise OptionError(f"{name}={size!r}: expected (width, height) in pixels, both above zero.")
    return wide, high
