"""One source → an upright RGB image."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps, UnidentifiedImageError

from .. import extras
from ..errors import ImageTooLarge, SourceError, SourceNotFound
from .expand import expand, is_single
from .fetch import MAX_BYTES, TIMEOUT, fetch
from .modes import to_rgb
from .pixels import to_image
from .sniff import looks_like
from .source import Source

MAX_PIXELS = 178_956_970
"""The most pixels that an encoded image may have (Pillow's own limit for an error)."""

# Pillow reads many more; one of them (EPS) starts another program.
_FORMATS = ["JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "AVIF", "HEIF", "JPEG2000", "PPM"]
_ORIENTATION = 0x0112
_open_lock = threading.Lock()


class LoadedImage(NamedTuple):
    """An upright RGB image and the (width, height) in pixels of the upright original.

    The two differ only where ``fit`` allowed a JPEG to be decoded at a fraction of its size.
    """

    image: Image.Image
    original_size: tuple[int, int]


def load(source: Any, **limits: Any) -> Image.Image:
    """Return the upright RGB image of ``source`` (anything that ``expand`` takes as one image).

    Takes the keywords of ``load_sized`` and raises the same errors.
    """
    return load_sized(source, **limits).image


def load_sized(
    source: Any,
    *,
    fit: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    timeout: float = TIMEOUT,
    max_bytes: int = MAX_BYTES,
) -> LoadedImage:
    """Return an upright RGB image and the size of its original.

    EXIF orientation is applied; transparency is laid on white; 16-bit values are scaled to 8; of an
    animation the first frame counts; colour profiles are ignored, as the models' own pipelines do. The
    content decides the format, not the file's suffix. ``fit`` (width, height in pixels, upright) says what
    is needed: a much larger JPEG may come back at 1/2, 1/4 or 1/8 of its size, never below ``fit``.
    ``max_pixels`` is checked before decoding; ``timeout`` (seconds) and ``max_bytes`` limit a download.

    Raises SourceNotFound, ImageTooLarge or SourceError with the source's label in ``source``.
    """
    one = single(source)
    try:
        if one.kind in ("image", "array"):
            image = one.payload if one.kind == "image" else to_image(one.payload)
            if 0 in image.size:
                raise SourceError(f"an image without pixels ({image.width}×{image.height}).")
            upright = _decode(image)
            return LoadedImage(upright, upright.size)
        return _encoded(fetch(one, timeout=timeout, max_bytes=max_bytes), fit, max_pixels)
    except SourceError as error:
        if error.source is None:
            raise type(error)(f"{one.label}: {error}", source=one.label) from error
        raise


def single(source: Any) -> Source:
    """Return the one source that ``source`` stands for; raises SourceError for a list or folder."""
    if isinstance(source, Source):
        return source
    items = expand(source)
    if len(items) == 1 and isinstance(items[0], SourceError):
        items[0].index = None
        raise items[0]
    if len(items) != 1 or isinstance(items[0], SourceError) or not is_single(source):
        raise SourceError(f"expected one image, got {len(items)}: load them one by one.")
    return items[0]


def _encoded(source: Source, fit: tuple[int, int] | None, max_pixels: int) -> LoadedImage:
    """Decode a path or bytes; every failure of the decoder becomes one line."""
    try:
        with _open(source) as image:
            _check_pixels(image, max_pixels)
            return _draft(image, fit)
    except SourceError:
        raise
    except FileNotFoundError as error:
        raise SourceNotFound("no such file.") from error
    except UnidentifiedImageError as error:
        raise SourceError(_unreadable(source)) from error
    except PermissionError as error:
        raise SourceError("no permission to read it.") from error
    except MemoryError as error:
        raise ImageTooLarge("not enough memory to decode it.") from error
    except Exception as error:  # decoders raise whatever their format's code raises
        raise SourceError(f"a damaged or truncated image ({_one_line(error)}).") from error


def _open(source: Source) -> Image.Image:
    """Read the header. Pillow's own pixel limit is lifted meanwhile: ours is checked next, with its size."""
    _register_heif()
    stream: Path | io.BytesIO = source.payload if source.kind == "path" else io.BytesIO(source.payload)
    with _open_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(stream, formats=_known_formats())
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _known_formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _register_heif() -> None:
    if "HEIF" in Image.OPEN:
        return
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"{width}×{height} = {width * height / 1e6:.0f} million pixels; the limit is "
            f"{max_pixels / 1e6:.0f} million (max_pixels)."
        )


def _draft(image: Image.Image, fit: tuple[int, int] | None) -> LoadedImage:
    """Decode, a JPEG at the fraction of its size that still covers ``fit``."""
    if fit is None or image.format not in ("JPEG", "MPO"):
        upright = _decode(image)
        return LoadedImage(upright, upright.size)
    turned = image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
    original = image.size[::-1] if turned else image.size
    image.draft(None, fit[::-1] if turned else fit)  # None keeps the mode
    return LoadedImage(_decode(image), original)


def _decode(image: Image.Image) -> Image.Image:
    """Return a new upright RGB image; the caller's own is not changed."""
    try:
        return to_rgb(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError) as error:
        raise SourceError(f"a damaged or truncated image ({_one_line(error)}).") from error


def _unreadable(source: Source) -> str:
    head = _head(source)
    if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"):
        return f"a HEIC image; reading it needs: {extras.command('heif')}"
    return f"not an image: it looks like {looks_like(head)}."


def _head(source: Source) -> bytes:
    if source.kind != "path":
        return bytes(source.payload[:1024])
    with source.payload.open("rb") as stream:
        return bytes(stream.read(1024))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
