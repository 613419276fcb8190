"""What a checkpoint's image processor made of images, kept for further questions about them.

Rescaling and cutting a megapixel into patches takes longer than a GPU needs to answer about it.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from .kept import Kept

CAP = 128 * 2**20


class PreparedImages:
    """Stands in a processor for its image processor; threads may use it at once.

    Only calls on images that ``knowing`` names are looked up: the same images, in the same order, with the
    same options.
    """

    def __init__(self, inner: Any, cap: int = CAP) -> None:
        self.kept: Kept[Any] = Kept(cap)
        self._inner = inner
        self._lock = threading.Lock()
        self._names = threading.local()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_inner":
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._inner, memo)

    def __reduce__(self) -> Any:
        return _itself, (self._inner,)

    @contextlib.contextmanager
    def knowing(self, images: Sequence[Any], keys: Sequence[str]) -> Iterator[None]:
        """In this thread ``images`` have these ``keys``: hashes of their pixels."""
        self._names.known = {id(image): key for image, key in zip(images, keys, strict=True)}
        try:
            yield
        finally:
            self._names.known = {}

    def __call__(self, images: Any = None, *args: Any, **options: Any) -> Any:
        """What the image processor returns; what it returned before, where that is known."""
        key = None if args else self._key(images, options)
        if key is None:
            return self._inner(images, *args, **options)
        with self._lock:
            found = self.kept.get(key)
        if found is None:
            found = self._inner(images, **options)
            with self._lock:
                self.kept.put(key, found, _size(found))
        return copy.copy(found)  # processors take things out of it

    def forget(self) -> None:
        """Keep nothing of what was prepared so far."""
        with self._lock:
            self.kept.clear()

    def _key(self, images: Any, options: Mapping[str, Any]) -> str | None:
        known = getattr(self._names, "known", {})
        names = [known.get(id(image)) for image in _flat(images)]
        return None if not names or None in names else repr((names, sorted(options.items())))


def _itself(inner: Any) -> Any:
    return inner


def _flat(images: Any) -> list[Any]:
    """Images of nested lists, as processors get them."""
    return [one for part in images for one in _flat(part)] if isinstance(images, list | tuple) else [images]


def _size(found: Mapping[str, Any]) -> int:
    return sum(value.nbytes for value in found.values() if isinstance(value, torch.Tensor))
