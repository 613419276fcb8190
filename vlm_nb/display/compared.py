"""Two models' answers as one table, escaped, small enough for a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .gallery import MAX_GALLERY
from .html import OPEN, block, escape, escaped_within, saved_size
from .style import STYLE
from .text import boxes_phrase

if TYPE_CHECKING:
    from ..results import Outcome

MAX_ROWS = 100
Row = tuple[str | None, "Outcome", "Outcome", str]
_CELL = "text-align:start;vertical-align:top;max-width:36ch"


def comparison_html(names: tuple[str, str], prompt: str, rows: Sequence[Row], summary: str) -> str:
    """Return a table with one row for each (source, left, right, verdict), then "and N more".

    At most ``MAX_ROWS`` rows and ``MAX_GALLERY`` bytes.
    """
    head = block("caption", escape(summary)) + block("prompt", escaped_within(prompt, 1_000, ".prompt"))
    titles = _row("th", [escape(title) for title in ("image", *names, "")])
    room = MAX_GALLERY - saved_size(STYLE + head + titles) - 500
    shown: list[str] = []
    for source, left, right, verdict in rows[:MAX_ROWS]:
        row = _row("td", [escape((source or "")[-80:]), _told(left), _told(right), escape(verdict)])
        room -= saved_size(row)
        if room < 0:
            break
        shown.append(row)
    rest = len(rows) - len(shown)
    more = block("more", f"and {rest:,} more in .rows") if rest else ""
    table = f"<table><thead>{titles}</thead><tbody>{''.join(shown)}</tbody></table>"
    return f'{OPEN}{STYLE}<div style="max-width:100%;overflow-x:auto">{head}{table}{more}</div></div>'


def _row(tag: str, cells: Sequence[str]) -> str:
    made = [f'<{tag} dir="auto" style="{_CELL}">{cell}</{tag}>' for cell in cells]
    return f"<tr>{''.join(made)}</tr>"


def _told(outcome: Outcome) -> str:
    result, error = outcome
    if result is None:
        text = escaped_within(str(error), 1_000, "the error")
        return block("warn", f"<b>{escape(type(error).__name__)}</b><br>{text}")
    parts = [block("caption", escaped_within(result.caption, 1_500, ".caption"))] if result.caption else []
    if result.grounded_phrases or result.grounding:
        parts.append(block("more", escaped_within(boxes_phrase(result), 600, ".grounded_phrases")))
    return "".join(parts)
