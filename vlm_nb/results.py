"""What users get back: grounded phrases, predictions and outcomes; and the geometry behind a box.

Boxes: ``bbox = (x_min, y_min, x_max, y_max)``, floats in 0..1 of the **upright original image** (EXIF
orientation applied), clipped and ordered.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .errors import OptionError, VLMError
from .request import Size, Usage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BBox = tuple[float, float, float, float]
"""(x_min, y_min, x_max, y_max)."""
Point = tuple[float, float]
"""(x, y)."""
GroundingStatus = Literal["found", "none", "unparsed"]


@dataclass(frozen=True, slots=True)
class GroundedPhrase:
    """A phrase and its place in an image.

    ``bbox`` is (x_min, y_min, x_max, y_max) in 0..1 of the upright original image; a model that points gives
    ``point`` (x, y) in the same space and a zero-area ``bbox`` at it. ``image_index`` counts the prompt's
    images from 0; ``source`` is "model" or "human". ``confidence`` (0..1, None where it is not known) is what
    the model wrote about the box, else the geometric mean of the probabilities of the tokens that spell its
    coordinates. It is not calibrated, and says nothing about the phrase.
    """

    phrase: str
    bbox: BBox
    _: KW_ONLY
    point: Point | None = None
    image_index: int = 0
    confidence: float | None = None
    source: str = "model"

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return (x_min, y_min, x_max, y_max) as whole pixels of an upright image of that size."""
        x0, y0, x1, y1 = self.bbox
        return round(x0 * width), round(y0 * height), round(x1 * width), round(y1 * height)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON and Parquet can hold."""
        return {
            "phrase": self.phrase,
            "bbox": list(self.bbox),
            "point": list(self.point) if self.point else None,
            "image_index": self.image_index,
            "confidence": self.confidence,
            "source": self.source,
        }


@dataclass(frozen=True, slots=True)
class Frame:
    """Where an original image lies inside the image that the model saw.

    ``original`` and ``seen`` are (width, height) in pixels; ``content`` is the (x_min, y_min, x_max, y_max)
    rectangle of ``seen`` that the original fills (all of it unless the family padded).
    """

    original: Size
    seen: Size
    content: BBox | None = None

    def to_original(self, bbox: BBox) -> BBox:
        """Map a box in pixels of ``seen`` to 0..1 of the original image, ordered and clipped."""
        x0, y0, x1, y1 = self.content or (0.0, 0.0, float(self.seen[0]), float(self.seen[1]))
        xs = sorted(_clip((x - x0) / max(x1 - x0, 1e-9)) for x in (bbox[0], bbox[2]))
        ys = sorted(_clip((y - y0) / max(y1 - y0, 1e-9)) for y in (bbox[1], bbox[3]))
        return xs[0], ys[0], xs[1], ys[1]

    def to_seen(self, bbox: BBox) -> BBox:
        """Map a box in 0..1 of the original image to pixels of ``seen`` (the inverse of ``to_original``)."""
        x0, y0, x1, y1 = self.content or (0.0, 0.0, float(self.seen[0]), float(self.seen[1]))
        w, h = x1 - x0, y1 - y0
        return x0 + bbox[0] * w, y0 + bbox[1] * h, x0 + bbox[2] * w, y0 + bbox[3] * h


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer about one image (or several together).

    ``caption`` is the answer without grounding markup, ``raw`` the exact model text. ``grounding`` is None
    (not asked, no markup), "found", "none" (the model said there is nothing) or "unparsed" (asked or marked
    up, but unreadable). ``image_size`` is (width, height) in pixels of the first upright original image.
    ``confidence`` is the geometric mean of the probabilities of all tokens of the answer: not calibrated,
    None where the engine tells none. ``preview`` is a small JPEG (at most 100 KB) of the first image, for
    display only.
    """

    caption: str
    _: KW_ONLY
    grounded_phrases: tuple[GroundedPhrase, ...] = ()
    grounding: GroundingStatus | None = None
    raw: str = ""
    thinking: str | None = None
    parsed: Any = None
    confidence: float | None = None
    prompt: str = ""
    model: str = ""
    source: str | None = None
    index: int | None = None
    image_size: Size | None = None
    usage: Usage = field(default_factory=Usage)
    notes: tuple[str, ...] = ()
    preview: bytes | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        from . import display

        return display.text_summary(self)

    def figure(self, **options: Any) -> Figure:
        """Return a matplotlib Figure of the preview with the boxes drawn over it.

        Raises SourceError where the prediction holds no image (a row of a table, say).
        """
        from . import display

        return display.prediction_figure(self, **options)

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write the overlay as an image file (format from the suffix; PNG without one) and return its path.

        Raises OptionError for a file that cannot be written, SourceError as ``figure`` does.
        """
        if not isinstance(path, (str, os.PathLike)) or Path(path).expanduser().is_dir():
            raise OptionError(f"{path!r}: expected the name of an image file.")
        target = Path(path).expanduser()
        target = target if target.suffix else target.with_suffix(".png")
        figure = self.figure(**options)
        try:
            figure.savefig(target)
        except (OSError, ValueError) as error:
            raise OptionError(f"{str(target)!r} cannot be written: {error}.") from None
        return target

    def to_dict(self) -> dict[str, Any]:
        """Everything but the preview, JSON-safe."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del plain["preview"]
        plain["grounded_phrases"] = [phrase.to_dict() for phrase in self.grounded_phrases]
        plain["usage"] = self.usage.to_dict()
        plain["image_size"] = list(self.image_size) if self.image_size else None
        plain["notes"] = list(self.notes)
        plain["parsed"] = json_safe(self.parsed)
        return plain

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from . import display

        return display.prediction_bundle(self)


def json_safe(value: Any) -> Any:
    """Return ``value`` if JSON can hold it, a pydantic model or dataclass as a dict, else its text."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
    return value


class Outcome(NamedTuple):
    """A result or an error, never both: ``result, error = model(...)``."""

    result: Prediction | None
    error: VLMError | None

    def unwrap(self) -> Prediction:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.result is not None  # noqa: S101 - the other half of the invariant
        return self.result


_ROW: Mapping[str, Callable[[Prediction], Any]] = {
    "caption": lambda p: p.caption,
    "boxes": lambda p: [phrase.to_dict() for phrase in p.grounded_phrases],
    "grounding": lambda p: p.grounding,
    "image_width": lambda p: p.image_size[0] if p.image_size else None,
    "image_height": lambda p: p.image_size[1] if p.image_size else None,
    "prompt": lambda p: p.prompt,
    "model": lambda p: p.model,
    "seconds": lambda p: p.usage.seconds,
}


def outcome_rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return one plain dict per outcome: source, the answer's fields (None where it failed), error.

    ``parsed`` is among them where an answer was constrained to a schema.
    """
    rows = []
    typed = any(outcome.result is not None and outcome.result.parsed is not None for outcome in outcomes)
    for result, error in outcomes:
        row: dict[str, Any] = {"source": result.source if result else getattr(error, "source", None)}
        row |= {name: take(result) if result else None for name, take in _ROW.items()}
        if typed:
            row["parsed"] = result.parsed if result else None
        row["error"] = f"{type(error).__name__}: {error}" if error else None
        rows.append(row)
    return rows
