"""``series.vlm``: ask a model about every image of a Series."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..errors import OptionError
from .call import Call, make_call
from .guide import Guided
from .merge import ATTRS, note_of
from .questions import prompt_of
from .table import Answers, answer_rows, as_column

if TYPE_CHECKING:
    from .show import Gallery

_KEPT_FAILURES = 1000


class SeriesAccessor(Guided):
    """Images of a Series, answered in batches: a Series of answers with the same index comes back.

    A failed row is null, with one warning for all; ``attrs["vlm"]["failures"]`` has the details. Keywords are
    those of ``df.vlm``.
    """

    def __init__(self, series: pd.Series[Any]) -> None:
        self._series = series

    def _about(self) -> str:
        return f"series.vlm: {len(self._series):,} rows"

    def caption(self, **options: Any) -> pd.Series[Any]:
        """Describe each image."""
        return self._answered(make_call("caption", "caption", None, options))

    def ask(self, question: Any, **options: Any) -> pd.Series[Any]:
        """Answer ``question`` (a text, a Series aligned by index, a function of the cell) for each image."""
        if question is None:
            raise OptionError('ask needs a question: ask("What is shown?").')
        return self._answered(make_call("ask", "answer", question, options))

    def ground(self, phrase: Any = None, **options: Any) -> pd.Series[Any]:
        """Find ``phrase``, or every object: a list of dicts for each image.

        ``bbox`` is (x_min, y_min, x_max, y_max) in 0..1 of the upright original image.
        """
        return self._answered(make_call("detect" if phrase is None else "locate", "boxes", phrase, options))

    def extract(self, schema: Any, question: Any = None, **options: Any) -> pd.Series[Any]:
        """Read a typed value from each image: a dict of plain values where ``schema`` is an object."""
        from ..results import json_safe
        from ..schema import as_schema
        from .call import Column

        wanted = as_schema(schema)
        question = wanted.question if question is None else question
        call = make_call("ask", "extract", question, options, schema=wanted)
        call.columns[:] = [Column(call.name, "object", lambda answer: json_safe(answer.parsed))]
        return self._answered(call)

    def show(self, count: int = 12) -> Gallery:
        """A gallery of the first ``count`` images."""
        from .show import Gallery, cards

        items = cards(self._series.to_frame("image"), self._series, count, None)
        return Gallery(items, len(self._series))

    def _answered(self, call: Call) -> pd.Series[Any]:
        answers = answer_rows(self._series, prompt_of(call.prompt, self._series), call)
        column = call.columns[0]
        out = as_column(answers.values[column.name], column.kind, self._series.index).rename(call.name)
        note = call.note(self._series.name, answers.counts)
        out.attrs[ATTRS] = note_of({call.name: note}) | {"failures": _failures(answers, self._series.index)}
        return out


def _failures(answers: Answers, index: pd.Index[Any]) -> list[dict[str, Any]]:
    """The first failures as plain values, after one warning that counts them all."""
    failed = list(answers.failures())
    if failed and not answers.interrupted:
        row, first = failed[0]
        warnings.warn(
            f"{len(failed):,} of {len(index):,} rows failed and are null; the first, row {row}: {first}"
            ' (all in .attrs["vlm"]["failures"])',
            UserWarning,
            stacklevel=4,
        )
    return [{"row": row, "index": str(index[row]), "error": error} for row, error in failed[:_KEPT_FAILURES]]
