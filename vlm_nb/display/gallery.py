"""Many predictions as one grid of cards, small enough for a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import VLMError
from .glyphs import one_line
from .html import OPEN, alt_text, block, escape, escaped_within, legend_html, saved_size, view_html
from .raster import drawn, encode_jpeg
from .stage import stage
from .style import STYLE
from .text import grounding_line

if TYPE_CHECKING:
    from ..results import Outcome, Prediction

MAX_GALLERY = 600_000
"""Bytes of a gallery as saved in a notebook."""
_LIMIT = (240, 200)
_SCALE = 1.25
_JPEG_FEW, _JPEG_MANY = 24_000, 11_000


def gallery_html(
    items: Sequence[Prediction | Outcome | VLMError], *, max_bytes: int = MAX_GALLERY, limit: int = 100
) -> str:
    """Return one card per item, in order; a failed one shows its error in its place.

    At most ``limit`` cards and ``max_bytes`` bytes, then "and N more".
    """
    jpeg_bytes = _JPEG_FEW if len(items) <= 16 else _JPEG_MANY
    shared = _shared_notes(items)
    head = "".join(block("note", escaped_within(note, 1_000, ".notes")) for note in shared[:5])
    cards: list[str] = []
    room = max_bytes - saved_size(STYLE) - saved_size(head) - 500
    for item in items[:limit]:
        card = _card(item, jpeg_bytes, shared)
        room -= saved_size(card)
        if room < 0:
            break
        cards.append(card)
    more = _more(items[len(cards) :])
    grid = f'<div class="vlm-nb-grid" role="list">{"".join(cards)}</div>'
    return f"{OPEN}{STYLE}{head}{grid}{more}</div>"


def _shared_notes(items: Sequence[Prediction | Outcome | VLMError]) -> list[str]:
    """Notes that every answer bears: shown once."""
    answers = [answer for answer in (_parts(item)[0] for item in items) if answer is not None]
    if len(answers) < 2:
        return []
    return [note for note in answers[0].notes if all(note in answer.notes for answer in answers)]


def _card(item: Prediction | Outcome | VLMError, jpeg_bytes: int, shared: Sequence[str]) -> str:
    prediction, error = _parts(item)
    body = _error(error) if error is not None else ""
    if prediction is not None:
        body += _answer(prediction, jpeg_bytes, shared)
    source = prediction.source if prediction is not None else getattr(error, "source", None)
    name = escape(one_line((source or "")[-200:]))
    line = f'<div class="vlm-nb-name" title="{name}" dir="auto"><bdi>{name}</bdi></div>' if name else ""
    return f'<div class="vlm-nb-card" role="listitem">{body}{line}</div>'


def _parts(item: Prediction | Outcome | VLMError) -> tuple[Prediction | None, VLMError | None]:
    if isinstance(item, VLMError):
        return None, item
    if isinstance(item, tuple):
        return item.result, item.error
    return item, None


def _error(error: VLMError) -> str:
    text = escaped_within(str(error), 1_000, "the error")
    return block("warn", f"<b>{type(error).__name__}</b><br>{text}")


def _answer(prediction: Prediction, jpeg_bytes: int, shared: Sequence[str]) -> str:
    parts, numbered = [], False
    if prediction.preview is not None:
        view = stage(prediction, _LIMIT, _SCALE)
        picture, layout = drawn(view.image, prediction.grounded_phrases, _SCALE)
        numbered = layout.numbered
        parts.append(view_html(encode_jpeg(picture, jpeg_bytes), view.screen, alt_text(prediction)))
    if caption := prediction.caption.strip():
        parts.append(block("caption", escaped_within(caption, 1_200, ".caption")))
    if status := grounding_line(prediction):
        parts.append(block("more", status))
    parts.append(legend_html(prediction.grounded_phrases, numbered, 2_500))
    own = [note for note in prediction.notes if note not in shared]
    parts += [block("note", escaped_within(note, 300, ".notes")) for note in own[:2]]
    return "".join(parts)


def _more(rest: Sequence[Prediction | Outcome | VLMError]) -> str:
    if not rest:
        return ""
    failed = sum(_parts(item)[1] is not None for item in rest)
    tail = f" ({failed:,} failed)" if failed else ""
    return block("more", f"and {len(rest):,} more{tail}")
