"""Predictions as text: for ``repr``, terminals, and the plain half of a notebook output."""

from __future__ import annotations

import functools
import json
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .glyphs import brief, visible

if TYPE_CHECKING:
    from ..results import GroundedPhrase, Prediction

MAX_PLAIN = 8_000
_MAX_LINES = 20


def text_summary(prediction: Prediction) -> str:
    """Return one short line, for ``repr`` and lists of predictions."""
    parts = [json.dumps(brief(prediction.caption, 80), ensure_ascii=False)]
    if prediction.grounded_phrases or prediction.grounding:
        parts.append(boxes_phrase(prediction))
    if prediction.model:
        parts.append(f"model={brief(prediction.model, 80)}")
    if prediction.usage.finish_reason not in ("stop", ""):
        parts.append(prediction.usage.finish_reason)
    return f"Prediction({', '.join(parts)})"


def boxes_phrase(prediction: Prediction) -> str:
    """What was boxed, as "3 boxes: red car ×2, tree"; or what became of the boxes that were asked for."""
    phrases = prediction.grounded_phrases
    if not phrases:
        return {"none": "nothing found", "unparsed": "boxes unreadable"}.get(
            prediction.grounding or "", "no boxes"
        )
    counts: dict[str, int] = {}
    for phrase in phrases:
        name = brief(phrase.phrase, 40)
        counts[name] = counts.get(name, 0) + 1
    names = [f"{name} ×{count}" if count > 1 else name for name, count in counts.items()]
    more = f", and {len(names) - 5} more" if len(names) > 5 else ""
    kind = "point" if all(phrase.point for phrase in phrases) else "box"
    plural = "" if len(phrases) == 1 else "s" if kind == "point" else "es"
    return f"{len(phrases)} {kind}{plural}: {', '.join(names[:5])}{more}"


def plain_text(prediction: Prediction) -> str:
    """Return the answer, its boxes (0..1 of the upright original), notes and cost as lines of text."""
    lines = [fold(visible(prediction.caption), MAX_PLAIN, ".caption")] if prediction.caption else []
    if status := grounding_line(prediction):
        lines.append(status)
    phrases = prediction.grounded_phrases
    lines += [_box_line(number, phrase) for number, phrase in enumerate(phrases[:_MAX_LINES], 1)]
    if len(phrases) > _MAX_LINES:
        lines.append(f"  and {len(phrases) - _MAX_LINES} more in .grounded_phrases")
    lines += [f"[{brief(note, 300)}]" for note in prediction.notes[:10]]
    if cost := usage_line(prediction):
        lines.append(cost)
    return "\n".join(lines)


def _box_line(number: int, phrase: GroundedPhrase) -> str:
    place = (
        f"point {_pair(phrase.point)}"
        if phrase.point
        else f"{_pair(phrase.bbox[:2])} – {_pair(phrase.bbox[2:])}"
    )
    sure = f"  {phrase.confidence:.2f}" if phrase.confidence is not None else ""
    return f"  {number} {brief(phrase.phrase, 60)}  {place}{sure}"


def _pair(pair: tuple[float, ...]) -> str:
    return f"({pair[0]:.3f}, {pair[1]:.3f})"


def grounding_line(prediction: Prediction) -> str:
    """What to tell where boxes were asked for and there are none; "" otherwise."""
    if prediction.grounding == "none":
        return "No match: the model found nothing to box."
    if prediction.grounding == "unparsed":
        return "Boxes could not be read from the answer; the exact text is in .raw."
    return ""


def usage_line(prediction: Prediction) -> str:
    """The model and what the answer cost, as "Qwen2.5-VL · 1.2 s · 48 new tokens"."""
    usage = prediction.usage
    parts = [brief(prediction.model, 80)] if prediction.model else []
    if usage.seconds is not None:
        parts.append(f"{usage.seconds:.2g} s" if usage.seconds < 10 else f"{usage.seconds:.0f} s")
    if usage.image_tokens is not None:
        parts.append(f"{usage.image_tokens:,} image tokens")
    if usage.new_tokens is not None:
        parts.append(f"{usage.new_tokens:,} new tokens")
    return " · ".join(parts)


def fold(text: str, limit: int, where: str) -> str:
    """Cut ``text`` at ``limit`` characters, saying where the whole of it is."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… [{len(text) - limit:,} more characters in {where}]"


def spans(numbers: Iterable[int]) -> str:
    """1, 2, 3, 7 → "1–3, 7"; at most 12 runs are spelled out."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [str(low) if low == high else f"{low}–{high}" for low, high in runs]
    return ", ".join(texts[:12]) + (", …" if len(texts) > 12 else "")


def terminal_text(prediction: Prediction) -> str:
    """Return ``plain_text`` and, where there is an image with boxes, the path of its saved overlay."""
    text = plain_text(prediction)
    if prediction.preview is None or not prediction.grounded_phrases:
        return text
    return f"{text}\noverlay: {save_overlay_for_terminal(prediction)}"


def save_overlay_for_terminal(prediction: Prediction) -> Path:
    """Write the overlay as a PNG in a temporary folder of this process and return its path.

    Raises SourceError where the prediction holds no image.
    """
    from .raster import drawn
    from .stage import RASTER_SCALE, stage

    picture, _ = drawn(stage(prediction).image, prediction.grounded_phrases, RASTER_SCALE)
    path = _folder() / f"overlay-{uuid.uuid4().hex[:8]}.png"
    picture.save(path)
    return path


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="vlm_nb-"))
