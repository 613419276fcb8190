"""What a user gives as ``source`` → a flat list of ``Source`` values and errors, in order."""

from __future__ import annotations

import difflib
import functools
import glob
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image, features

from ..errors import SourceError, SourceNotFound
from .pixels import is_array, is_batch, shape_text
from .uris import decode_data_uri, public_url, scheme_of

Kind = Literal["path", "url", "bytes", "image", "array"]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tiff", ".tif", ".webp")
_GLOB_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One image, not yet read.

    ``label`` is what users and logs see (a path, a URL without credentials and query, "PIL image 640×480");
    ``payload`` is a Path, a URL, bytes, a PIL image or an array, as ``kind`` says.
    """

    label: str
    kind: Kind
    payload: Any = field(repr=False)


Item = Source | SourceError


@functools.cache
def image_suffixes() -> tuple[str, ...]:
    """The lower-case file suffixes that a folder is searched for (``.heic``, ``.avif`` where they decode)."""
    extra: tuple[str, ...] = (".avif",) if features.check("avif") else ()
    if importlib.util.find_spec("pillow_heif"):
        extra += (".heic", ".heif")
    return _SUFFIXES + extra


def is_single(source: Any) -> bool:
    """Whether a call with this source answers with one outcome (else: a list of them).

    A file, a URL, bytes, an image or an array is single; a list, a folder, a glob or a batch of arrays is
    not. A path that does not exist is single, unless it has glob characters.
    """
    if isinstance(source, (str, os.PathLike)):
        path = _path_of(source)
        return path is None or not (_is_dir(path) or _is_glob(path))
    if is_array(source):
        return not is_batch(source)
    return not _is_listing(source)


def expand(source: Any, *, recursive: bool = False) -> list[Item]:
    """Return one entry per image of ``source``, in order; what cannot be used is an error in its place.

    Folders expand in sorted order (their images only; below them too with ``recursive``), globs likewise;
    an existing file or folder wins over its name read as a glob. Duplicates stay. Raises nothing: errors
    are ``SourceError`` values whose ``index`` is their place in the returned list.
    """
    items = list(_items(source, recursive))
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
    return _paths(source, recursive)


def _paths(source: str | os.PathLike[str], recursive: bool) -> Source | list[Item]:
    label = _shorten(str(source))
    path = _path_of(source)
    if path is None:
        raise SourceError(f"{label!r} cannot be a path.", source=label)
    if path.is_file():
        return Source(str(path), "path", path)
    if _is_dir(path):
        return list(_folder(path, recursive))
    if path.exists():
        raise SourceError(f"{label} is neither a file nor a folder.", source=label)
    if _is_glob(path):
        return list(_matches(path, recursive))
    raise SourceNotFound(f"no such file: {label}{_near(path)}", source=label)


def _path_of(source: str | os.PathLike[str]) -> Path | None:
    """The path of a text, ``~`` expanded; None where it is a URI or cannot be a path at all."""
    text = source.strip() if isinstance(source, str) else os.fspath(source)
    if not isinstance(text, str) or not text or (isinstance(source, str) and scheme_of(text)):
        return None
    try:
        path = Path(text).expanduser()
        path.stat()
    except FileNotFoundError:
        return path
    except RuntimeError:  # ~nobody
        return Path(text)
    except (OSError, ValueError) as error:  # a name too long, a null character, a loop of links
        return path if isinstance(error, (PermissionError, NotADirectoryError)) else None
    return path


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_glob(path: Path) -> bool:
    """Whether a path can only be meant as a pattern."""
    return not _GLOB_CHARACTERS.isdisjoint(str(path)) and not path.exists()


def _folder(folder: Path, recursive: bool) -> Iterator[Item]:
    """The images of a folder, sorted by path; names that start with a dot are left out."""
    try:
        found = sorted(_walk(folder, recursive))
    except OSError as error:
        reason = error.strerror or str(error)
        yield SourceError(f"cannot list the folder {folder}: {reason}.", source=str(folder))
        return
    if not found:
        deeper = "" if recursive else _deeper(folder)
        kinds = " ".join(image_suffixes())
        yield SourceNotFound(f"no images in the folder {folder} ({kinds}){deeper}", source=str(folder))
    for path in found:
        yield Source(str(path), "path", path)


def _walk(folder: Path, recursive: bool) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        if Path(str(error.filename)) == folder:
            raise error

    for root, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        yield from (Path(root, name) for name in names if _is_image_name(name))


def _is_image_name(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(image_suffixes())


def _deeper(folder: Path) -> str:
    try:
        more = next(_walk(folder, True), None)
    except OSError:
        more = None
    return "; its subfolders hold some: recursive=True reads them." if more else "."


def _matches(pattern: Path, recursive: bool) -> Iterator[Item]:
    """What a glob matches, sorted: files of any suffix that a user spelled, folders as folders."""
    found = sorted(Path(name) for name in glob.glob(str(pattern), recursive=True))
    files = [path for path in found if path.is_file() and _wanted(pattern, path)]
    for path in files:
        yield Source(str(path), "path", path)
    if not files:
        folders = [path for path in found if path.is_dir()]
        for folder in folders:
            yield from _folder(folder, recursive)
        if not folders:
            yield SourceNotFound(f"no file matches {pattern}.", source=str(pattern))


def _wanted(pattern: Path, path: Path) -> bool:
    """``photos/*`` means the images; ``photos/*.dat`` means what it says."""
    return bool(pattern.suffix) or _is_image_name(path.name)


def _near(path: Path) -> str:
    try:
        names = [entry.name for entry in os.scandir(path.parent or Path())]
    except OSError:
        return f" (its folder {path.parent} does not exist)." if not path.parent.exists() else "."
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f"; did you mean {path.parent / close[0]}?" if close else "."


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
    name = "tensor" if hasattr(value, "detach") else "array"
    return Source(f"{name} {shape_text(value)}", "array", value)


_OBJECTS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Source | list[Item]]], ...] = (
    (lambda v: isinstance(v, Image.Image), _image),
    (lambda v: isinstance(v, (bytes, bytearray, memoryview)), _bytes),
    (lambda v: isinstance(v, Mapping), _mapping),
    (lambda v: hasattr(v, "read"), _file),
    (is_array, _array),
)


def _shorten(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "…"


def _size_text(count: int) -> str:
    return f"{count / 1000:.0f} kB" if count >= 1000 else f"{count} B"
