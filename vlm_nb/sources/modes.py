"""Every PIL mode → RGB, without clipping what 8 bits cannot hold."""

from __future__ import annotations

from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """Return ``image`` as RGB: transparency on white, more than 8 bits scaled, grey repeated."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return _deep(image).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _deep(image: Image.Image) -> Image.Image:
    """Return an 8-bit grey image of integers (0..65535 scaled) or floats (0..1 scaled)."""
    floats = image.mode == "F"
    wide = image if floats else image.convert("I")
    low, high = (float(value) for value in wide.getextrema())  # type: ignore[arg-type]  # one band
    full = 1.0 if floats and high <= 1 else 65535.0
    if not floats and image.mode == "I" and high <= 255:
        full = 255.0
    if low < 0 or high > full:
        return _stretch(wide, low, high)
    return _scaled(wide, 255.0 / full, 0.0)


def _stretch(image: Image.Image, low: float, high: float) -> Image.Image:
    scale = 255.0 / max(high - low, 1e-12)
    return _scaled(image, scale, -low * scale)


def _scaled(image: Image.Image, scale: float, offset: float) -> Image.Image:
    real = image.convert("F").point(lambda value: value * scale + (offset + 0.5))
    return real.convert("L")
