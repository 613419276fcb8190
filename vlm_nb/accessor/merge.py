"""Answers as new columns of a copy, and the note in ``attrs["vlm"]`` that says which columns are ours."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import pandas as pd

from .. import __version__
from ..errors import OptionError
from .call import Call
from .table import NO_IMAGE, Answers, as_column

ATTRS = "vlm"
_TASKS = ("caption", "ask", "detect", "locate")


def noted(table: pd.DataFrame | pd.Series[Any]) -> dict[str, Any]:
    """The note of earlier calls: ``{"calls": {name: …}}``, those that are whole; empty where there is none.

    ``attrs`` travels through files that others may edit.
    """
    note = table.attrs.get(ATTRS)
    calls = note.get("calls") if isinstance(note, dict) else None
    whole = calls.items() if isinstance(calls, dict) else ()
    return {"calls": {name: call for name, call in whole if _is_whole(call)}}


def _is_whole(call: Any) -> bool:
    kinds = {"task": str, "columns": list, "settings": dict, "model": dict}
    fits = isinstance(call, dict) and all(isinstance(call.get(key), kind) for key, kind in kinds.items())
    return fits and call["task"] in _TASKS and {"image", "prompt"} <= set(call) and "name" in call["model"]


def own_columns(frame: pd.DataFrame) -> set[str]:
    """The columns that earlier calls made."""
    return {name for call in noted(frame)["calls"].values() for name in call["columns"]}


def check_clash(frame: pd.DataFrame, call: Call) -> None:
    """Raise OptionError where a new column would replace one that is not ours."""
    taken = [name for name in call.names if name in frame.columns and name not in own_columns(frame)]
    if taken and not call.overwrite:
        listed = ", ".join(map(repr, taken))
        raise OptionError(
            f"the table has columns of its own called {listed}; give name={call.name + '_2'!r} for new ones,"
            " or overwrite=True to replace them."
        )


def with_answers(frame: pd.DataFrame, call: Call, answers: Answers, image: Hashable) -> pd.DataFrame:
    """Return a copy of ``frame`` with the answers as columns; the original is untouched."""
    calls = dict(noted(frame)["calls"])
    stale = set(calls.get(call.name, {}).get("columns", ())) - set(call.names)
    out = frame.drop(columns=[name for name in stale if name in frame.columns]).copy()
    for column in call.columns:
        out[column.name] = as_column(answers.values[column.name], column.kind, out.index)
    out[call.error_column] = as_column([error or None for error in answers.errors], "text", out.index)
    calls.pop(call.name, None)
    calls[call.name] = call.note(image, answers.counts)
    out.attrs[ATTRS] = note_of(calls)
    return out


def with_retried(
    frame: pd.DataFrame, call: Call, answers: Answers, rows: Iterable[int], image: Hashable
) -> pd.DataFrame:
    """Return a copy of ``frame`` in which ``rows`` (numbers) have the new answers."""
    merged = Answers.empty(call.columns, len(frame))
    merged.counts = answers.counts
    for column in call.columns:
        merged.values[column.name] = [
            None if pd.api.types.is_scalar(v) and pd.isna(v) else v for v in frame[column.name]
        ]
    merged.errors = [None if pd.isna(error) else str(error) for error in frame[call.error_column]]
    for place, row in enumerate(rows):
        for column in call.columns:
            merged.values[column.name][row] = answers.values[column.name][place]
        merged.errors[row] = answers.errors[place]
    merged.counts.rows = len(frame)
    merged.counts.nulls = merged.errors.count(NO_IMAGE)
    merged.counts.runaway += noted(frame)["calls"].get(call.name, {}).get("runaway", 0)
    merged.counts.failed = sum(1 for _ in merged.failures())
    return with_answers(frame, call, merged, image)


def note_of(calls: dict[str, Any]) -> dict[str, Any]:
    """The note as JSON can hold it."""
    return {"vlm_nb": __version__, "pandas": pd.__version__, "calls": calls}
