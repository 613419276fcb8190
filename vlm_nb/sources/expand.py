"""What a user gives as ``source`` → a flat list of ``Source`` values and errors, in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from PIL import Image

from ..errors import SourceError
from .paths import from_path, is_dir, is_glob, path_of
from .pixels import encoded_bytes, is_array, is_batch, shape_text
from .source import Item, Source
from .uris import decode_data_uri, public_url, scheme_of


def is_single(source: Any) -> bool:
    """Whether a call with this source answers with one outcome (else: a list of them).

    A file, a URL, bytes, an image or an array is single; a list, a folder, a glob or a batch of arrays is
    not. A path that does not exist is single, unless it has glob characters.
    """
    if isinstance(source, (str, os.PathLike)):
        path = path_of(source)
        return path is None or not (is_dir(path) or is_glob(path))
    if is_array(source):
        return not is_batch(source)
    return not _is_listing(source)


def expand(source: Any, *, recursive: bool = False) -> list[Item]:
    """Return one entry per image of ``source``, in order; what cannot be used is an error in its place.

    Folders expand in sorted order (their images only; below them too with ``recursive``), globs likewise;
    an existing file or folder wins over its name read as a glob. Duplicates stay. Raises nothing: errors
    are ``SourceError`` values whose ``index`` is their place in the returned list.
    """
    try:
        items = list(_items(source, recursive))
    except RecursionError:
        items = [SourceError("lists of images are nested too deeply, or hold themselves.")]
    for index, item in enumerate(items):
        if isinstance(item, SourceError):
            item.index = index
    return items


def _items(source: Any, recursive: bool) -> Iterator[Item]:
    if _is_listing(source):
        for part in source:
            yield from _items(part, recursive)
        return
    if is_array(source) and is_batch(source):
        for part in source:
            yield _array(part)
        return
    try:
        found = _one(source, recursive)
    except SourceError as error:
        yield error
    else:
        yield from [found] if isinstance(found, Source) else found


def _is_listing(source: Any) -> bool:
    if isinstance(source, (str, bytes, bytearray, memoryview, os.PathLike, Mapping, Image.Image, Source)):
        return False
    if getattr(source, "shape", None) == ():  # a scalar of NumPy, which calls itself iterable
        return False
    return isinstance(source, Iterable) and not hasattr(source, "read") and not is_array(source)


def _one(source: Any, recursive: bool) -> Source | list[Item]:
    if isinstance(source, Source):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _text(source, recursive)
    for accepts, build in _OBJECTS:
        if accepts(source):
            return build(source)
    given = "None" if source is None else f"{type(source).__name__} {str(source)[:40]!r}"
    raise SourceError(
        f"no image in {given}; expected a path, URL, bytes, data URI, PIL image, array or tensor.",
        source=given,
    )


def _text(source: str | os.PathLike[str], recursive: bool) -> Source | list[Item]:
    text = source.strip() if isinstance(source, str) else os.fspath(source)
    scheme = scheme_of(text) if isinstance(source, str) else None
    if scheme == "data":
        data, media = decode_data_uri(text)
        return Source(f"data URI ({media}, {_size_text(len(data))})", "bytes", data)
    if scheme in ("http", "https"):
        return Source(public_url(text), "url", text)
    if scheme is not None:
        label = public_url(text)
        hint = "give the path itself" if scheme == "file" else "download it and give its path or bytes"
        raise SourceError(f"{scheme}:// addresses are not read ({label}); {hint}.", source=label)
    return from_path(source, recursive)


def _mapping(value: Mapping[str, Any]) -> Source | list[Item]:
    """An image as Hugging Face datasets store it: ``{"bytes": …, "path": …}``."""
    if (data := value.get("bytes")) is not None:
        name = value.get("path")
        made = _bytes(data)
        return Source(str(name), "bytes", made.payload) if name else made
    if value.get("path"):
        return _text(value["path"], False)
    raise SourceError(f"no image in a dict with keys {sorted(map(str, value))}; expected 'bytes' or 'path'.")


def _bytes(value: bytes | bytearray | memoryview) -> Source:
    return Source(f"bytes ({_size_text(len(value))})", "bytes", bytes(value))


def _file(value: Any) -> Source:
    name = getattr(value, "name", None)
    label = name if isinstance(name, str) else f"{type(value).__name__} object"
    try:
        if getattr(value, "seekable", lambda: False)():
            value.seek(0)
        data = value.read()
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {label}: {error}.", source=label) from error
    if not isinstance(data, bytes):
        raise SourceError(f"{label} is open as text; open it with mode 'rb'.", source=label)
    return Source(label, "bytes", data)


def _image(value: Image.Image) -> Source:
    return Source(f"PIL image {value.width}×{value.height}", "image", value)


def _array(value: Any) -> Source:
    if (data := encoded_bytes(value)) is not None:
        return _bytes(data)
    name = "tensor" if hasattr(value, "detach") else "array"
    return Source(f"{name} {shape_text(value)}", "array", value)


_OBJECTS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Source | list[Item]]], ...] = (
    (lambda v: isinstance(v, Image.Image), _image),
    (lambda v: isinstance(v, (bytes, bytearray, memoryview)), _bytes),
    (lambda v: isinstance(v, Mapping), _mapping),
    (lambda v: hasattr(v, "read"), _file),
    (is_array, _array),
)


def _size_text(count: int) -> str:
    return f"{count / 1000:.0f} kB" if count >= 1000 else f"{count} B"
