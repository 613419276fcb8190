"""Overlays drawn into images with Pillow, and JPEGs that stay under a size."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont, features

from .glyphs import default_font, font_for, needs_shaping
from .layout import CASING, POINT_RADIUS, STROKE, Layout, Mark, Rect, lay_out

if TYPE_CHECKING:
    from ..results import GroundedPhrase

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PREVIEW_SIDE = 1024
_SCREEN_SIDE = 640.0
_FONT_SIZE = 12.0
_PAD_X, _PAD_Y = 4.0, 1.0
_QUALITIES = (90, 82, 72, 60, 45)
_SHRINK = 0.8
_SMOOTH = 4


def preview_jpeg(image: Image.Image, max_bytes: int = 100_000) -> bytes:
    """Return ``image`` as a JPEG of at most ``max_bytes``, its longer side at most 1,024 pixels."""
    return encode_jpeg(fit_within(image, (PREVIEW_SIDE, PREVIEW_SIDE)), max_bytes)


def encode_jpeg(image: Image.Image, max_bytes: int) -> bytes:
    """Return the best JPEG of at most ``max_bytes``: first the quality goes down, then the size."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    while True:
        for quality in _QUALITIES:
            stream = io.BytesIO()
            rgb.save(stream, "JPEG", quality=quality, subsampling=0 if quality > 80 else 2)
            if stream.tell() <= max_bytes or rgb.size == (1, 1):
                return stream.getvalue()
        rgb = rgb.resize((max(1, int(rgb.width * _SHRINK)), max(1, int(rgb.height * _SHRINK))))


def fit_within(image: Image.Image, limit: tuple[int, int]) -> Image.Image:
    """Return an image no larger than ``limit`` (width, height), same aspect; smaller ones as they are."""
    ratio = min(limit[0] / image.width, limit[1] / image.height)
    if ratio >= 1:
        return image
    size = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=1.5)


def overlay_image(
    image: Image.Image,
    phrases: Sequence[GroundedPhrase],
    *,
    scale: float | None = None,
    image_index: int = 0,
) -> Image.Image:
    """Return a copy of an upright ``image`` with the boxes drawn over it, at its own size.

    ``phrases`` have boxes (x_min, y_min, x_max, y_max) in 0..1 of the upright original. ``scale`` is image
    pixels per screen pixel for strokes and labels; by default the longer side counts as 640 screen pixels.
    """
    return drawn(image, phrases, scale or default_scale(image.size), image_index)[0]


def default_scale(size: tuple[int, int]) -> float:
    """Image pixels per screen pixel, where the longer side of ``size`` shall look like 640 pixels."""
    return max(0.75, max(size) / _SCREEN_SIDE)


def drawn(
    image: Image.Image, phrases: Sequence[GroundedPhrase], scale: float, image_index: int = 0
) -> tuple[Image.Image, Layout]:
    """As ``overlay_image``, with the layout that was drawn."""
    canvas = image.convert("RGB") if image.mode != "RGB" else image.copy()
    layout = lay_out(
        phrases,
        canvas.size,
        lambda text: _label_size(text, scale),
        scale=scale,
        image_index=image_index,
        drawable=lambda text: _can_draw(text, scale),
    )
    for mark in layout.marks:
        _draw_place(canvas, mark, scale)
    pen = ImageDraw.Draw(canvas)
    for mark in layout.marks:
        _draw_label(pen, mark, scale)
    return canvas, layout


def _draw_place(canvas: Image.Image, mark: Mark, scale: float) -> None:
    stroke = max(1, round(STROKE * scale))
    casing = max(1, round(scale * 0.75))
    if mark.point is not None:
        _draw_point(canvas, mark.point, mark.style.colour, scale, casing)
        return
    pen = ImageDraw.Draw(canvas)
    rect = _whole(mark.rect)
    _frame(pen, rect, CASING, stroke + 2 * casing)
    inner = (rect[0] + casing, rect[1] + casing, rect[2] - casing, rect[3] - casing)
    if mark.style.dashed:
        _dashes(pen, inner, mark.style.colour, stroke, round(7 * scale))
    else:
        _frame(pen, inner, mark.style.colour, stroke)


def _whole(rect: Rect) -> tuple[int, int, int, int]:
    """The first and last pixel of a rectangle in each direction."""
    x0, y0 = round(rect[0]), round(rect[1])
    return x0, y0, max(x0, round(rect[2]) - 1), max(y0, round(rect[3]) - 1)


def _frame(pen: ImageDraw.ImageDraw, rect: tuple[int, int, int, int], colour: str, stroke: int) -> None:
    x0, y0, x1, y1 = rect
    if x1 < x0 or y1 < y0:
        return
    thick = min(stroke, max(1, (min(x1 - x0, y1 - y0) + 1) // 2))
    pen.rectangle(rect, outline=colour, width=thick)


def _dashes(
    pen: ImageDraw.ImageDraw, rect: tuple[int, int, int, int], colour: str, stroke: int, dash: int
) -> None:
    x0, y0, x1, y1 = rect
    if x1 < x0 or y1 < y0:
        return
    s = stroke - 1
    for x in range(x0, x1 + 1, 2 * dash):
        end = min(x + dash, x1)
        pen.rectangle((x, y0, end, min(y0 + s, y1)), fill=colour)
        pen.rectangle((x, max(y1 - s, y0), end, y1), fill=colour)
    for y in range(y0, y1 + 1, 2 * dash):
        end = min(y + dash, y1)
        pen.rectangle((x0, y, min(x0 + s, x1), end), fill=colour)
        pen.rectangle((max(x1 - s, x0), y, x1, end), fill=colour)


def _draw_point(canvas: Image.Image, at: tuple[float, float], colour: str, scale: float, casing: int) -> None:
    """A disc, drawn large and shrunk so that its edge is smooth."""
    radius = POINT_RADIUS * scale
    side = 2 * math.ceil(radius) + 2
    stamp = Image.new("RGBA", (side * _SMOOTH, side * _SMOOTH), (26, 26, 26, 0))
    pen = ImageDraw.Draw(stamp)
    for grow, fill in ((0.0, CASING), (-casing, "#FFFFFF"), (-2.0 * casing, colour)):
        r = max(0.5, radius + grow) * _SMOOTH
        middle = side * _SMOOTH / 2
        pen.ellipse((middle - r, middle - r, middle + r, middle + r), fill=fill)
    stamp = stamp.resize((side, side), Image.Resampling.LANCZOS)
    canvas.paste(stamp, (round(at[0] - side / 2), round(at[1] - side / 2)), stamp)


def _draw_label(pen: ImageDraw.ImageDraw, mark: Mark, scale: float) -> None:
    if mark.label_rect is None:
        return
    x0, y0, x1, y1 = mark.label_rect
    edge = (round(x0), round(y0), round(x1) - 1, round(y1) - 1)
    pen.rectangle(edge, fill=mark.style.colour, outline=CASING, width=max(1, round(scale * 0.5)))
    font = _font(mark.label, scale)
    middle = ((x0 + x1) / 2, (y0 + y1) / 2)
    pen.text(middle, mark.label, fill=mark.style.ink, font=font, anchor="mm")


def _can_draw(text: str, scale: float) -> bool:
    if text.isascii():
        return True
    if needs_shaping(text) and not (features.check("raqm") and features.check("fribidi")):
        return False
    return font_for(text) is not None


def _label_size(text: str, scale: float) -> tuple[float, float]:
    font = _font(text, scale)
    height = _FONT_SIZE * 1.25 * scale
    return font.getlength(text) + 2 * _PAD_X * scale, height + 2 * _PAD_Y * scale


def _font(text: str, scale: float) -> Font:
    path = default_font() if text.isascii() else font_for(text)
    return _sized(str(path) if path else None, round(_FONT_SIZE * scale * 2) / 2)


@functools.lru_cache(maxsize=64)
def _sized(path: str | None, size: float) -> Font:
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)
