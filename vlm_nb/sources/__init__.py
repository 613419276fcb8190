"""Anything that names or is an image → an upright RGB ``PIL.Image``.

``expand`` turns what a user gives (path, folder, glob, URL, bytes, data URI, PIL image, array, tensor, lists
of these) into a flat list of ``Source`` values, an error standing in its own place; ``load`` decodes one of
them. Nothing is read from disk or network before ``load`` (but a file object by ``expand``: it reads once).
"""

from .decode import MAX_PIXELS, LoadedImage, load, load_sized
from .expand import expand, is_single
from .fetch import MAX_BYTES, TIMEOUT, fetch
from .keys import content_key, to_data_uri
from .paths import image_suffixes, names_image, placed
from .source import Source

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "TIMEOUT",
    "LoadedImage",
    "Source",
    "content_key",
    "expand",
    "fetch",
    "image_suffixes",
    "is_single",
    "load",
    "load_sized",
    "names_image",
    "placed",
    "to_data_uri",
]
