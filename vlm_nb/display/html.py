"""A prediction as a notebook output: escaped HTML with the overlay as a JPEG data URI, and plain text.

Everything that a model, a prompt or a file name brings goes through ``escape``. The whole bundle stays under
150 KB as it is saved in a notebook (JSON, base64): texts have budgets, and the image takes what is left.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .glyphs import shorten, visible
from .layout import Layout, Style, phrase_styles
from .raster import drawn, encode_jpeg
from .stage import RASTER_SCALE, stage
from .style import STYLE
from .text import boxes_phrase, fold, grounding_line, plain_text, spans, usage_line

if TYPE_CHECKING:
    from ..results import GroundedPhrase, Prediction

MAX_BUNDLE = 150_000
"""Bytes of a whole output as saved in a notebook."""
MAX_JPEG = 80_000
OPEN = '<div class="vlm-nb mathjax_ignore tex2jax_ignore">'
"""The outermost element; the other classes keep MathJax away (JupyterLab typesets ``$…$`` in HTML too)."""
_OPEN_CAPTION = 1_500
_CHIPS_IN_VIEW = 8


def escape(text: str) -> str:
    """Text → HTML: control characters visible, markup inert, fit for attributes too."""
    return html.escape(visible(text), quote=True)


def block(kind: str, body: str, tag: str = "div") -> str:
    """One element of class ``vlm-nb-KIND`` around escaped HTML, in the direction of its text."""
    reach = ' tabindex="0"' if kind == "scroll" else ""
    return f'<{tag} class="vlm-nb-{kind}" dir="auto"{reach}>{body}</{tag}>'


def folded(title: str, body: str) -> str:
    """HTML that opens on a click."""
    return f"<details><summary>{title}</summary>{body}</details>"


def saved_size(text: str) -> int:
    """Bytes that ``text`` takes in a saved notebook."""
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def escaped_within(text: str, budget: int, where: str) -> str:
    """Escape ``text``, cut so that it takes at most about ``budget`` bytes, saying where the whole is."""
    limit = min(len(text), budget)
    while saved_size(escape(text[:limit])) > budget:
        limit = limit * 3 // 4
    return escape(fold(text, limit, where))


def plain_within(prediction: Prediction, budget: int) -> str:
    """``plain_text`` of at most about ``budget`` bytes."""
    text = plain_text(prediction)
    limit = min(len(text), budget)
    while saved_size(text[:limit]) > budget:
        limit = limit * 3 // 4
    return fold(text, limit, ".to_dict()")


def prediction_bundle(prediction: Prediction) -> dict[str, str]:
    """Return text/plain and text/html of a prediction, at most 150 KB together as saved."""
    plain = plain_within(prediction, 16_000)
    view = stage(prediction) if prediction.preview is not None else None
    picture, layout = None, Layout((), False)
    if view is not None:
        picture, layout = drawn(view.image, prediction.grounded_phrases, RASTER_SCALE)
    text = text_html(prediction, layout)
    left = MAX_BUNDLE - saved_size(STYLE) - saved_size(text) - saved_size(plain) - 500
    if picture is None or view is None:
        return {"text/plain": plain, "text/html": f"{OPEN}{STYLE}{text}</div>"}
    hover = hover_svg(layout, picture.size, min(left // 3, 25_000))
    jpeg = encode_jpeg(picture, min(MAX_JPEG, (left - saved_size(hover)) * 3 // 4))
    figure = view_html(jpeg, view.screen, alt_text(prediction), hover)
    return {"text/plain": plain, "text/html": f"{OPEN}{STYLE}{figure}{text}</div>"}


def view_html(jpeg: bytes, screen: tuple[int, int], alt: str, hover: str = "") -> str:
    """The picture, ``screen`` (width, height) in screen pixels, never wider than its cell."""
    data = base64.b64encode(jpeg).decode()
    image = f'<img alt="{alt}" width="{screen[0]}" height="{screen[1]}" src="data:image/jpeg;base64,{data}">'
    return f'<div class="vlm-nb-view" style="width:{screen[0]}px">{image}{hover}</div>'


def alt_text(prediction: Prediction) -> str:
    """Escaped alternative text: what is boxed, else what the answer says."""
    what = boxes_phrase(prediction) if prediction.grounded_phrases else shorten(prediction.caption, 150)
    return escape(f"Image with {what}" if prediction.grounded_phrases else f"Image: {what}")


def hover_svg(layout: Layout, size: tuple[int, int], budget: int) -> str:
    """Unseen rectangles over the picture whose titles name the phrases and say how sure the model was.

    The smallest lies on top.
    """
    width, height = size
    parts = [
        f'<svg aria-hidden="true" viewBox="0 0 {width} {height}" preserveAspectRatio="none" '
        f'xmlns="http://www.w3.org/2000/svg">'
    ]
    room = budget
    for mark in layout.marks:
        x0, y0, x1, y1 = (round(value) for value in mark.rect)
        sure = "" if mark.confidence is None else f" · confidence {mark.confidence:.2f}"
        title = escape(f"{mark.number} · {shorten(mark.phrase, 100)}{sure}")
        rect = (
            f'<rect x="{x0}" y="{y0}" width="{x1 - x0}" height="{y1 - y0}" fill="none" '
            f'pointer-events="all" color="{mark.style.colour}"><title>{title}</title></rect>'
        )
        room -= saved_size(rect)
        if room > 0:
            parts.append(rect)
    return "".join([*parts, "</svg>"])


def text_html(prediction: Prediction, layout: Layout) -> str:
    """Prompt, answer, notes, list of phrases and cost, each within its budget."""
    parts = [_prompt(prediction.prompt), _answer(prediction), _status(prediction)]
    parts += [legend_html(prediction.grounded_phrases, layout.numbered), _thinking(prediction)]
    notes = prediction.notes[:10]
    parts += [block("note", escaped_within(note, 1_000, ".notes")) for note in notes]
    if cost := usage_line(prediction):
        parts.append(block("cost", escaped_within(cost, 1_000, ".usage")))
    return f'<div class="vlm-nb-text">{"".join(parts)}</div>'


def _prompt(prompt: str) -> str:
    if not prompt.strip():
        return ""
    return block("prompt", escaped_within(prompt.strip(), 3_000, ".prompt"))


def _answer(prediction: Prediction) -> str:
    if prediction.parsed is not None:
        pretty = escaped_within(_pretty(prediction.parsed), 20_000, ".parsed")
        return block("scroll", pretty, tag="pre")
    caption = prediction.caption.strip()
    if not caption:
        return "" if prediction.grounded_phrases or prediction.grounding else _empty()
    body = escaped_within(caption, 24_000, ".caption")
    if len(caption) <= _OPEN_CAPTION:
        return block("caption", body)
    start = escape(shorten(caption, 600))
    whole = folded(f"All {len(caption):,} characters", block("scroll", body))
    return block("caption", start) + whole


def _empty() -> str:
    return block("more", "The model answered with no text.")


def _pretty(value: Any) -> str:
    from ..results import json_safe

    return json.dumps(json_safe(value), indent=2, ensure_ascii=False)


def _status(prediction: Prediction) -> str:
    line = grounding_line(prediction)
    if not line:
        return ""
    raw = ""
    if prediction.grounding == "unparsed":
        body = escaped_within(prediction.raw, 6_000, ".raw")
        raw = folded("Exact text", block("scroll", body, tag="pre"))
    return block("warn", line) + raw


def _thinking(prediction: Prediction) -> str:
    if not prediction.thinking:
        return ""
    body = escaped_within(prediction.thinking, 8_000, ".thinking")
    return folded("Thinking", block("scroll", body))


def legend_html(phrases: Sequence[GroundedPhrase], numbered: bool, budget: int = 20_000) -> str:
    """One chip a phrase: colour, text, how many, and its numbers where the overlay shows numbers."""
    numbers: dict[str, list[int]] = {}
    for number, phrase in enumerate(phrases, 1):
        numbers.setdefault(phrase.phrase, []).append(number)
    chips: list[str] = []
    for text, style in phrase_styles(phrases).items():
        chip = _chip(text, style, numbers[text], numbered, confidence_range(phrases, numbers[text]))
        budget -= saved_size(chip)
        if budget < 0:
            chips.append(f'<span class="vlm-nb-more">and {len(numbers) - len(chips):,} more phrases</span>')
            break
        chips.append(chip)
    reach = (
        ' tabindex="0"' if len(chips) > _CHIPS_IN_VIEW else ""
    )  # a list that scrolls must take the keyboard
    return f'<div class="vlm-nb-list" role="list"{reach}>{"".join(chips)}</div>' if chips else ""


def confidence_range(phrases: Sequence[GroundedPhrase], numbers: Sequence[int]) -> str:
    """The confidence of the boxes with these numbers, as "confidence 0.27–0.35"; "" where none is known."""
    known = [phrases[number - 1].confidence for number in numbers]
    texts = sorted({f"{value:.2f}" for value in known if value is not None})
    return f"confidence {'–'.join(dict.fromkeys((texts[0], texts[-1])))}" if texts else ""


def _chip(text: str, style: Style, numbers: Sequence[int], numbered: bool, sure: str) -> str:
    dash = ' class="vlm-nb-dash"' if style.dashed else ""
    count = spans(numbers) if numbered else f"×{len(numbers)}" if len(numbers) > 1 else ""
    tail = f"<small>{count}</small>" if count else ""
    title = f' title="{sure}"' if sure else ""
    shown = escaped_within(text or "(no phrase)", 1_500, ".grounded_phrases")
    return (
        f'<span class="vlm-nb-chip" role="listitem"{title}><i{dash} style="background:{style.colour}"></i>'
        f"<bdi>{shown}</bdi>{tail}</span>"
    )
