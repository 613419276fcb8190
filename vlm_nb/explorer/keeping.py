"""The answers as a DataFrame and as files: JSON lines, CSV, one HTML page. Pure: turns in, text out."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import display
from ..errors import OptionError
from ..frames import to_frame
from ..results import Outcome, outcome_rows
from .turns import Turn, together

if TYPE_CHECKING:
    from pandas import DataFrame

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }}
article {{ margin: 0 0 2.5rem; }} h2 {{ font-size: 1rem; }} img {{ max-width: 100%; }}</style></head>
<body><h1>{title}</h1>
{articles}
</body></html>
"""


class Exported(NamedTuple):
    """A file to save: its name, media type and text."""

    name: str
    mime: str
    text: str


def columns(turn: Turn) -> dict[str, Any]:
    """What a row says beside its prediction: the turn's number, and how far two compared answers agree."""
    compared = turn.comparison
    return {"turn": turn.answer.number, "agreement": compared.rows[0].agreement if compared else None}


def to_table(turns: Sequence[Turn]) -> DataFrame:
    """One row an answer: what ``vlm_nb.to_frame`` gives, and ``columns``. Raises MissingDependency."""
    rows = [(p, columns(turn)) for turn in turns for p in turn.results]
    frame = to_frame([Outcome(prediction, None) for prediction, _ in rows])
    return frame.assign(**{name: [more[name] for _, more in rows] for name in ("turn", "agreement")})


def to_jsonl(turns: Sequence[Turn]) -> str:
    """One JSON object a line, with everything but the image (see ``Prediction.to_dict``)."""
    rows = ({**p.to_dict(), **columns(turn)} for turn in turns for p in turn.results)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def to_csv(turns: Sequence[Turn]) -> str:
    """The columns of ``Explorer.results``; boxes are JSON in their cell."""
    predictions = [(p, columns(turn)) for turn in turns for p in turn.results]
    plain = outcome_rows([Outcome(prediction, None) for prediction, _ in predictions])
    rows = [{**row, **more} for row, (_, more) in zip(plain, predictions, strict=True)]
    stream = io.StringIO()
    if rows:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "boxes": json.dumps(row["boxes"], ensure_ascii=False)} for row in rows)
    return stream.getvalue()


def to_html(turns: Sequence[Turn], title: str = "vlm_nb Explorer") -> str:
    """One page that needs nothing else: each answer with its image and boxes. All text is escaped."""
    articles = "\n".join(_article(turn) for turn in turns if turn.results)
    return _PAGE.format(title=html.escape(title), articles=articles or "<p>No answers yet.</p>")


def _article(turn: Turn) -> str:
    asked = turn.answer.prompt or turn.results[0].prompt or "Drawn boxes"
    heading = html.escape(f"{turn.answer.number}. {asked}")
    return f"<article><h2>{heading}</h2>{turn_bundle(turn)['text/html']}</article>"


def turn_bundle(turn: Turn) -> dict[str, str]:
    """Text and HTML of a turn's answer; of two that are compared one image with both, and their table."""
    compared = turn.comparison
    made = display.prediction_bundle(together(compared) if compared else turn.results[0])
    page = made.get("text/html", "")
    if compared is None:
        return {**made, "text/html": page}
    table = compared._repr_mimebundle_()["text/html"]
    return {"text/plain": repr(compared), "text/html": page + table}


_FORMATS: Mapping[str, tuple[str, Callable[[Sequence[Turn]], str]]] = {
    "json": ("answers.jsonl|application/x-ndjson", to_jsonl),
    "csv": ("answers.csv|text/csv", to_csv),
    "html": ("answers.html|text/html", to_html),
}


def export(turns: Sequence[Turn], format: str) -> Exported:
    """Return the file of ``format`` ("json", "csv" or "html"). Raises OptionError."""
    if format not in _FORMATS:
        raise OptionError(f"unknown export format {format!r}; allowed are: {', '.join(_FORMATS)}.")
    kind, write = _FORMATS[format]
    name, mime = kind.split("|")
    return Exported(name, mime, write(turns))
