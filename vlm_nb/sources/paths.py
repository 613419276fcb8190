"""Files, folders and globs."""

from __future__ import annotations

import contextlib
import difflib
import functools
import glob
import importlib.util
import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from PIL import features

from ..demo import sample_images
from ..errors import SourceError, SourceNotFound
from .source import Item, Source
from .uris import scheme_of

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tiff", ".tif", ".webp")
_GLOB_CHARACTERS = frozenset("*?[")
_REFUSALS = {"other": "is neither a file nor a folder", "forbidden": "may not be read (permission denied)"}


@functools.cache
def image_suffixes() -> tuple[str, ...]:
    """The lower-case file suffixes that a folder is searched for (``.heic``, ``.avif`` where they decode)."""
    extra: tuple[str, ...] = (".avif",) if "avif" in features.get_supported() else ()
    if importlib.util.find_spec("pillow_heif"):
        extra += (".heic", ".heif")
    return _SUFFIXES + extra


def from_path(source: str | os.PathLike[str], recursive: bool) -> Source | list[Item]:
    """Return the file, or what the folder or the glob holds; raises SourceError."""
    label = _shorten(str(source))
    path = path_of(source)
    if path is None:
        raise SourceError(f"{label!r} cannot be a path.", source=label)
    what = _what(path)
    if what == "file":
        return Source(str(path), "path", path)
    if what == "folder":
        return list(_folder(path, recursive))
    if what != "missing":
        raise SourceError(f"{label} {_REFUSALS[what]}.", source=label)
    if is_glob(path):
        return list(_matches(path, recursive))
    raise SourceNotFound(f"no such file: {label}{missing(path)}", source=label)


def path_of(source: str | os.PathLike[str]) -> Path | None:
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


def is_dir(path: Path) -> bool:
    """Whether a path is a folder that may be looked at."""
    return _what(path) == "folder"


def is_glob(path: Path) -> bool:
    """Whether a path can only be meant as a pattern."""
    return not _GLOB_CHARACTERS.isdisjoint(str(path)) and _what(path) == "missing"


def _what(path: Path) -> Literal["file", "folder", "other", "missing", "forbidden"]:
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return "forbidden"
    except OSError:
        return "missing"
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


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


def names_image(text: str | None) -> bool:
    """Whether a text is one word that ends as an image file does, or the path of such a file."""
    if text is None or not text.strip().lower().endswith(image_suffixes()):
        return False
    return len(text.split()) == 1 or _what(Path(text.strip()).expanduser()) == "file"


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
    files = [path for path in found if _what(path) == "file" and _wanted(pattern, path)]
    for path in files:
        yield Source(str(path), "path", path)
    if not files:
        folders = [path for path in found if is_dir(path)]
        for folder in folders:
            yield from _folder(folder, recursive)
        if not folders:
            yield SourceNotFound(f"no file matches {pattern}.", source=str(pattern))


def _wanted(pattern: Path, path: Path) -> bool:
    """``photos/*`` means the images; ``photos/*.dat`` means what it says."""
    return bool(pattern.suffix) or _is_image_name(path.name)


def missing(path: Path, names: Iterable[str] = ()) -> str:
    """How a message on a file that is not there ends: where it comes from, a near name, or a full stop.

    ``names`` are what else may have been meant: variables.
    """
    if str(path) in sample_images():
        return "; the demo model's samples come here with:  import vlm_nb; vlm_nb.demo.copy_images()"
    try:
        files = [entry.name for entry in itertools.islice(os.scandir(path.parent), 2000)]
    except OSError:
        return f" (its folder {path.parent} does not exist)." if _what(path.parent) == "missing" else "."
    near = [str(path.parent / name) for name in _close(path.name, files)] or _close(str(path), names)
    return f"; did you mean {near[0]}?" if near else "."


def _close(name: str, known: Iterable[str]) -> list[str]:
    others = [other for other in known if other != name]  # a link to nothing has its own name
    return difflib.get_close_matches(name, others, n=1, cutoff=0.7)


def placed(error: SourceError) -> SourceError:
    """Return the error of a relative path, which has no better advice, with the working folder named.

    For single calls: the rows of a table or list are not to repeat it.
    """
    relative = error.source and not os.path.isabs(os.path.expanduser(error.source))
    if isinstance(error, SourceNotFound) and relative and error.message.endswith("."):
        with contextlib.suppress(OSError):  # the folder was deleted
            error.args = (f"{error.message} The working folder is {Path.cwd()}.",)
    return error


def _shorten(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "…"
