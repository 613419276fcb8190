"""The answers as files: JSON lines, a CSV table, one HTML page. Pure: predictions in, text out."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..errors import OptionError
from ..results import Outcome, Prediction, outcome_rows

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


def to_jsonl(predictions: Sequence[Prediction]) -> str:
    """One JSON object a line, with everything but the image (see ``Prediction.to_dict``)."""
    return "".join(json.dumps(p.to_dict(), ensure_ascii=False) + "\n" for p in predictions)


def to_csv(predictions: Sequence[Prediction]) -> str:
    """The columns of ``vlm_nb.to_frame``; boxes are JSON in their cell."""
    rows = outcome_rows([Outcome(prediction, None) for prediction in predictions])
    stream = io.StringIO()
    if rows:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "boxes": json.dumps(row["boxes"], ensure_ascii=False)} for row in rows)
    return stream.getvalue()


def to_html(predictions: Sequence[Prediction], title: str = "vlm_nb Explorer") -> str:
    """One page that needs nothing else: each answer with its image and boxes. All text is escaped."""
    articles = "\n".join(_article(number, p) for number, p in enumerate(predictions, 1))
    return _PAGE.format(title=html.escape(title), articles=articles or "<p>No answers yet.</p>")


def _article(number: int, prediction: Prediction) -> str:
    from .. import display

    heading = html.escape(f"{number}. {prediction.prompt or 'Drawn boxes'}")
    body = display.prediction_bundle(prediction).get("text/html", "")
    return f"<article><h2>{heading}</h2>{body}</article>"


_FORMATS: Mapping[str, tuple[str, Callable[[Sequence[Prediction]], str]]] = {
    "json": ("answers.jsonl|application/x-ndjson", to_jsonl),
    "csv": ("answers.csv|text/csv", to_csv),
    "html": ("answers.html|text/html", to_html),
}


def export(predictions: Sequence[Prediction], format: str) -> Exported:
    """Return the file of ``format`` ("json", "csv" or "html"). Raises OptionError."""
    if format not in _FORMATS:
        raise OptionError(f"unknown export format {format!r}; allowed are: {', '.join(_FORMATS)}.")
    kind, write = _FORMATS[format]
    name, mime = kind.split("|")
    return Exported(name, mime, write(predictions))
