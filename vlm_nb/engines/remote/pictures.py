"""Images on their way to a server: in the request, or as files that a server on this file system reads."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

ImageURL = str


def encoded(image: Image, quality: int | None) -> tuple[str, bytes]:
    """Return (media type, bytes): PNG, which loses nothing, or JPEG 4:4:4 of ``quality`` 1..100."""
    target = io.BytesIO()
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if quality is None:
        rgb.save(target, "PNG", compress_level=1)
        return "image/png", target.getvalue()
    rgb.save(target, "JPEG", quality=quality, subsampling=0)
    return "image/jpeg", target.getvalue()


def data_uri(image: Image, quality: int | None) -> ImageURL:
    """Return the image as a data URI."""
    kind, payload = encoded(image, quality)
    return f"data:{kind};base64,{base64.b64encode(payload).decode('ascii')}"


def shared_file(image: Image, quality: int | None, folder: Path) -> ImageURL:
    """Write the image into ``folder``, named by its content, and return its ``file://`` URL."""
    kind, payload = encoded(image, quality)
    path = folder / f"{hashlib.sha256(payload).hexdigest()[:32]}.{kind.removeprefix('image/')}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(payload)
        part.replace(path)
    return path.resolve().as_uri()
