"""What identifies an image's content, and an image as a data URI."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import Any, Literal

from PIL import Image

from ..errors import SourceError, SourceNotFound
from .decode import single
from .fetch import fetch
from .pixels import host_array
from .source import Source

_ORIENTATION = 0x0112


def content_key(source: Any) -> str:
    """Return a key that is equal for equal content only.

    "bytes:…" hashes the encoded bytes of a path, URL, bytes or data URI; "pixels:…" hashes pixels, mode and
    size of a PIL image (with palette and orientation) or an array. ``source`` is a ``Source`` or anything
    that ``load`` takes. A URL is downloaded: ``fetch`` it first where it is loaded too. Raises SourceError.
    """
    one = fetch(single(source))
    if one.kind == "path":
        return _file_key(one)
    if one.kind == "bytes":
        return f"bytes:{hashlib.sha256(one.payload).hexdigest()}"
    digest = hashlib.sha256()
    try:
        parts = _image_parts(one.payload) if one.kind == "image" else _array_parts(one.payload)
    except (OSError, SyntaxError, ValueError) as error:
        raise SourceError(f"{one.label}: cannot be read ({error}).", source=one.label) from error
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return f"pixels:{digest.hexdigest()}"


def _file_key(source: Source) -> str:
    try:
        with source.payload.open("rb") as stream:
            return f"bytes:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    except FileNotFoundError as error:
        raise SourceNotFound(f"{source.label}: no such file.", source=source.label) from error
    except OSError as error:
        raise SourceError(
            f"{source.label}: cannot be read ({error.strerror}).", source=source.label
        ) from error


def _image_parts(image: Image.Image) -> list[bytes]:
    palette = image.palette.tobytes() if image.mode in ("P", "PA") and image.palette else b""
    facts = (image.mode, image.size, image.info.get("transparency"), image.getexif().get(_ORIENTATION, 1))
    return [repr(facts).encode(), palette, image.tobytes()]


def _array_parts(array: Any) -> list[bytes]:
    host = host_array(array)
    layout = "tensor" if hasattr(array, "detach") else "array"  # the same shape may be read differently
    return [repr((layout, str(host.dtype), tuple(host.shape))).encode(), host.tobytes()]


def to_data_uri(image: Image.Image, format: Literal["PNG", "JPEG"] = "PNG", quality: int = 90) -> str:
    """Return ``image`` as ``data:image/png;base64,…``; ``quality`` (1..95) is for JPEG."""
    stream = io.BytesIO()
    if format == "JPEG":
        image.convert("RGB").save(stream, "JPEG", quality=quality)
    else:
        image.save(stream, "PNG")
    return f"data:image/{format.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"
