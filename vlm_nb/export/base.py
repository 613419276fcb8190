"""One labelled image as plain values, and what the formats share."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OptionError, SourceError
from ..request import Size
from ..results import BBox, GroundedPhrase, Outcome
from ..sources import load_sized

Place = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """An image and what was found in it.

    ``image`` is anything that ``sources.load`` takes, None where the row has none; ``size`` the (width,
    height) of the upright original in pixels, None where it must be looked up; ``texts`` are captions and
    answers by name; ``labelled`` is False where no grounding succeeded (not: where nothing was found).
    """

    row: int
    name: str
    image: Any
    size: Size | None = None
    phrases: tuple[GroundedPhrase, ...] = ()
    texts: dict[str, str] = field(default_factory=dict)
    labelled: bool = True

    def measured(self) -> Size:
        """The size of the upright image, read from its header where it is not known. Raises SourceError."""
        return self.size or load_sized(self.image, fit=(1, 1)).original_size

    def boxes(self) -> list[GroundedPhrase]:
        """The phrases whose box has an area; a point has none."""
        return [p for p in self.phrases if p.bbox[2] > p.bbox[0] and p.bbox[3] > p.bbox[1]]


def from_outcomes(outcomes: Iterable[Outcome]) -> Iterator[LabelledImage]:
    """The answers of a list call, as the exporters take them; failed ones are left unlabelled."""
    for row, (result, error) in enumerate(outcomes):
        source = (result.source if result else error.source if error else None) or f"image {row}"
        if result is None:
            yield LabelledImage(row=row, name=source, image=None, labelled=False)
        else:
            yield LabelledImage(
                row=row,
                name=source,
                image=source,
                size=result.image_size,
                phrases=result.grounded_phrases,
                texts={"caption": result.caption},
                labelled=result.grounding in ("found", "none"),
            )


def labelled_only(images: Iterable[LabelledImage], what: str) -> list[LabelledImage]:
    """The images that a detection format can say something about; warns of points, which it cannot hold."""
    kept = [image for image in images if image.labelled and image.image is not None]
    points = sum(len(image.phrases) - len(image.boxes()) for image in kept)
    if points:
        warnings.warn(f"{points:,} points have no area and were left out: {what} holds boxes.", stacklevel=3)
    return kept


def class_names(images: Iterable[LabelledImage]) -> list[str]:
    """The phrases that have boxes, sorted: a class's number is its place."""
    return sorted({phrase.phrase for image in images for phrase in image.boxes()})


def corners(bbox: BBox, size: Size) -> BBox:
    """A box in pixels of an image of that (width, height), as floats: nothing is rounded away."""
    return bbox[0] * size[0], bbox[1] * size[1], bbox[2] * size[0], bbox[3] * size[1]


def target_file(path: Place) -> Path:
    """Return the file to write, its folder made. Raises OptionError where it cannot be one."""
    target = _target(path, "a file name")
    if target.is_dir():
        raise OptionError(f"{os.fspath(path)!r} is a folder; give the name of a file in it.")
    return _with_folder(target, target.parent)


def target_folder(path: Place, *parts: str) -> Path:
    """Return the folder to write into, with ``parts`` made in it. Raises OptionError where that fails."""
    target = _target(path, "the name of a folder")
    for part in parts:
        _with_folder(target, target / part)
    return target


def _target(path: Any, wanted: str) -> Path:
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise OptionError(f"{path!r}: expected {wanted}.")
    return Path(path).expanduser()


def _with_folder(target: Path, folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{str(folder)!r} cannot be made: {error.strerror}.") from None
    return target


def write_json(content: Any, path: Place) -> None:
    """Write ``content`` as JSON; the file is complete or not there."""
    target = target_file(path)
    partial = target.with_name(target.name + ".part")
    partial.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    partial.replace(target)


def sizes_of(images: Sequence[LabelledImage]) -> list[tuple[LabelledImage, Size]]:
    """Each image with its size; one that cannot be read any more is left out with a warning."""
    found = []
    for image in images:
        try:
            found.append((image, image.measured()))
        except SourceError as error:
            warnings.warn(f"row {image.row} was left out: {error}", stacklevel=4)
    return found
