"""The images of the widget: which there are, which is shown, and their previews, made on a worker thread."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from PIL import Image

from .. import sources
from ..errors import OptionError, SourceError, VLMError
from ..results import BBox
from . import images
from .edits import clipped
from .screen import Screen
from .threads import Pace, Worker

KEPT_IMAGES = 3
MAX_UPLOAD = 64_000_000
_MOST_THUMBS = 50
_COLUMNS = ("image", "images", "path", "file", "filename", "source", "url")


class Album:
    """An ordered list of sources (an unreadable one stands in its place as an error) and the shown index."""

    def __init__(self, screen: Screen, worker: Worker, moved: Callable[[], None]) -> None:
        self._screen, self._worker, self._moved = screen, worker, moved
        self.items: list[sources.Source | SourceError] = []
        self.index = 0
        self._pace = Pace()
        self._kept: OrderedDict[int, sources.LoadedImage] = OrderedDict()
        self._uploads: dict[str, list[bytes]] = {}

    # Handlers -----------------------------------------------------------------------------------------------

    def add(self, given: Any, *, recursive: bool = False) -> None:
        """Append what ``given`` expands to, show its first image, and take an earlier alert away."""
        self._append(given, recursive=recursive)
        self._screen.show(notice={})

    def _append(self, given: Any, *, recursive: bool = False) -> None:
        found = sources.expand(given, recursive=recursive)
        if len(found) == 1 and isinstance(found[0], SourceError):
            raise found[0]
        first, self.items = len(self.items), [*self.items, *found]
        self.go(first)

    def pick(self, message: dict[str, Any]) -> None:
        """Add a path, folder, glob or URL that was typed (listing a folder takes time: on the worker)."""
        text = str(message.get("text") or "").strip().strip("\"'")
        if text:
            self._worker.put(lambda: self._guard(lambda: self.add(text)))

    def upload(self, message: dict[str, Any], buffers: list[Any]) -> None:
        """Take one part of an uploaded, dropped or pasted file; after the last one show the image."""
        key, part, parts = str(message["key"]), int(message["part"]), int(message["parts"])
        chunks = self._uploads.setdefault(key, [])
        chunks.extend(bytes(buffer) for buffer in buffers)
        if sum(map(len, chunks)) > MAX_UPLOAD:
            del self._uploads[key]
            self._screen.alert(
                f"{message.get('name')}: over {MAX_UPLOAD // 1_000_000} MB; give its path instead."
            )
        elif part == parts - 1:
            data = b"".join(self._uploads.pop(key))
            name = str(message.get("name") or "pasted image")[:200]
            self._worker.put(lambda: self._guard(lambda: self._take(name, data)))

    def show(self, message: dict[str, Any]) -> None:
        """Go to the image ``index`` (counted from 0, clamped)."""
        self.go(int(message["index"]))

    def go(self, index: int) -> None:
        """Show the image ``index``; a decode of an earlier one that has not begun is left out."""
        self.index = max(0, min(index, len(self.items) - 1))
        self.tell()
        self._moved()
        shown = self.index
        self._worker.put(lambda: self._picture(shown))

    def large(self, message: dict[str, Any]) -> None:
        """Send the larger preview of an image that is still shown."""
        index = int(message["index"])
        self._worker.put(lambda: self._large(index))

    def crop(self, message: dict[str, Any]) -> None:
        """Send a sharp cut of the shown image."""
        index, region, side = int(message["index"]), clipped(message["bbox"]), int(message["side"])
        self._worker.put(lambda: self._crop(index, region, max(16, side), message.get("seq")))

    def thumbs(self, message: dict[str, Any]) -> None:
        """Send thumbnails of some images."""
        for index in list(message["indices"])[:_MOST_THUMBS]:
            self._worker.put(lambda index=int(index): self._thumb(index))  # type: ignore[misc]

    # What others read ---------------------------------------------------------------------------------------

    def source(self, index: int) -> sources.Source:
        """The source of an image. Raises its SourceError, or OptionError when there is no image."""
        if not self.items:
            raise OptionError("there is no image yet: add one first.")
        if not 0 <= index < len(self.items):
            raise OptionError(f"image {index}: there are {len(self.items)}, counted from 0.")
        item = self.items[index]
        if isinstance(item, SourceError):
            raise item
        return item

    def label(self, index: int) -> str:
        """What users see as the image's name."""
        item = self.items[index]
        return item.label if isinstance(item, sources.Source) else str(item.source or "not an image")

    def image(self, index: int) -> sources.LoadedImage:
        """The decoded upright image (the last few are kept). Raises a SourceError. Worker threads only."""
        if index not in self._kept:
            self._kept[index] = sources.load_sized(self.source(index))
            while len(self._kept) > KEPT_IMAGES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(index)
        return self._kept[index]

    def close(self) -> None:
        """Let all images go."""
        self.items = []
        self._kept.clear()
        self._uploads.clear()

    def tell(self) -> None:
        """Send the count and the place."""
        count = len(self.items)
        label = self.label(self.index) if count else ""
        self._screen.show(album={"count": count, "index": self.index, "label": label})

    # On the worker thread -----------------------------------------------------------------------------------

    def _guard(self, function: Callable[[], None]) -> None:
        try:
            function()
        except VLMError as error:
            self._screen.alert(error)

    def _take(self, name: str, data: bytes) -> None:
        source = sources.Source(name, "bytes", data)
        sources.load_sized(source)
        self._append(source)  # one of several perhaps: an alert on another of them stays

    def _picture(self, index: int) -> None:
        if index != self.index or not self.items:
            return
        picture: dict[str, Any] = {"index": index, "label": self.label(index)}
        try:
            loaded = self.image(index)
        except VLMError as error:
            picture |= {"error": str(error), "size": None, "jpeg": b""}
        else:
            data = images.small(loaded.image)
            self._pace.wait(len(data))
            picture |= {"error": "", "size": list(loaded.original_size), "jpeg": data}
        if index == self.index:
            self._screen.show(picture=picture)

    def _large(self, index: int) -> None:
        if index == self.index:
            self._send("large", index, images.large(self._decoded(index)))

    def _crop(self, index: int, region: BBox, side: int, seq: Any) -> None:
        if index == self.index:
            data, covered = images.crop(self._decoded(index), region, side)
            self._send("crop", index, data, bbox=list(covered), seq=seq)

    def _thumb(self, index: int) -> None:
        if abs(index - self.index) > _MOST_THUMBS or not 0 <= index < len(self.items):
            return
        try:
            image = sources.load_sized(self.source(index), fit=(images.THUMB_SIDE, images.THUMB_SIDE)).image
        except VLMError as error:
            self._screen.message({"type": "thumb", "index": index, "error": str(error)})
            return
        self._send("thumb", index, images.thumb(image))

    def _decoded(self, index: int) -> Image.Image:
        return self.image(index).image

    def _send(self, kind: str, index: int, data: bytes, **more: Any) -> None:
        self._pace.wait(len(data))
        self._screen.message({"type": kind, "index": index, **more}, [data])


def from_table(table: Any, column: str | None) -> list[Any]:
    """The values of a DataFrame's image column. Raises OptionError naming the columns it has."""
    names = [str(name) for name in table.columns]
    if column is not None and column not in names:
        raise OptionError(f"no column {column!r}; the frame has: {', '.join(names)}.")
    chosen = column or next((name for name in _COLUMNS if name in names), None)
    if chosen is None:
        raise OptionError(f"which column holds the images? column=… of: {', '.join(names)}.")
    return list(table[chosen])
