"""Asking about every row of a column, into plain values: no answer's object outlives its row."""

from __future__ import annotations

import dataclasses
import warnings
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from .. import errors
from ..asking import Job
from ..batch import Counts, Run, cancelled_row, in_ipython, interrupted
from ..batch.rows import Expander
from ..errors import Cancelled, SourceError, VLMError
from ..results import Outcome
from ..sources import expand
from .call import Call, Column
from .columns import is_null
from .questions import PromptOf

NO_IMAGE = "SourceError: no image in this row (null)."


@dataclass(slots=True)
class Answers:
    """The values of a call, row for row: ``values`` by column name, ``errors`` as text (None: answered)."""

    values: dict[str, list[Any]]
    errors: list[str | None]
    counts: Counts = field(default_factory=Counts)
    interrupted: bool = False

    @classmethod
    def empty(cls, columns: list[Column], rows: int) -> Answers:
        """All values null."""
        return cls({column.name: [None] * rows for column in columns}, [None] * rows)

    def failures(self) -> Iterator[tuple[int, str]]:
        """Row number and error of each failed row; rows without an image are no failures."""
        return ((row, error) for row, error in enumerate(self.errors) if error and error != NO_IMAGE)


def text_of(error: VLMError) -> str:
    """An error as a cell holds it."""
    return f"{type(error).__name__}: {error}"


def error_of(text: str, *, source: str, row: int) -> VLMError:
    """The error that ``text_of`` wrote; a SourceError of that text for anything else."""
    name, _, message = text.partition(": ")
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, VLMError):
        return kind(message, source=source, index=row)
    return SourceError(text, source=source, index=row)


class _Rows:
    """The jobs of a column, pulled lazily, and the row that each belongs to."""

    def __init__(self, images: pd.Series[Any], prompt: PromptOf, call: Call, answers: Answers) -> None:
        self._images = images
        self._prompt = prompt
        self._call = call
        self._answers = answers
        self._expand = Expander()
        self.row_of = array("q")

    def __iter__(self) -> Iterator[Job | VLMError]:
        for row, cell in enumerate(self._images):
            if is_null(cell):
                self._answers.errors[row] = NO_IMAGE
                continue
            self.row_of.append(row)
            yield job_of(self._call, cell, self._prompt, row, self._expand)


def job_of(
    call: Call, cell: Any, prompt: PromptOf, row: int, expand: Callable[[Any], list[Any]] = expand
) -> Job | VLMError:
    """The job of one row, or the row's error."""
    try:
        found = expand(cell)
        if len(found) != 1:
            raise SourceError(f"a cell holds one image; this one stands for {len(found)}.")
        return call.maker(found[0], prompt(row))
    except VLMError as error:
        return error


def answer_rows(images: pd.Series[Any], prompt: PromptOf, call: Call) -> Answers:
    """Ask ``call`` about each image. An interrupt in IPython keeps what is finished.

    With ``on_error="raise"`` the first failure is raised, with its row number as ``index``.
    """
    answers = Answers.empty(call.columns, len(images))
    rows = _Rows(images, prompt, call, answers)
    how = dataclasses.replace(call.run, total=len(images), nulls=sum(map(is_null, images)))
    with Run(call.model, rows, how) as run:
        try:
            for position, outcome in run:
                _keep(answers, call, rows.row_of[position], outcome)
        except KeyboardInterrupt:
            if not in_ipython():
                raise
            for position, outcome in run.halt():
                _keep(answers, call, rows.row_of[position], outcome)
            _interrupted(answers, images, kept=how.ledger_path is not None)
    answers.counts = run.counts
    if run.counts.runaway:
        _runaway(run.counts.runaway, len(images))
    return answers


def _runaway(count: int, rows: int) -> None:
    """Say that answers were cut; the rows are answered, but with half of the text a repeat."""
    warnings.warn(
        f"{count:,} of {rows:,} answers repeated themselves without end and were cut; repetition_penalty=1.1"
        " often helps, cut_repeats=False lets them run on.",
        UserWarning,
        stacklevel=5,
    )


def _keep(answers: Answers, call: Call, row: int, outcome: Outcome) -> None:
    result, error = outcome
    if result is not None:
        for column in call.columns:
            answers.values[column.name][row] = column.take(result)
        answers.errors[row] = ""  # answered; null in the end
    elif error is not None:
        if call.on_error == "raise" and not isinstance(error, Cancelled):
            error.index = row
            raise error
        answers.errors[row] = text_of(error)


def _interrupted(answers: Answers, images: pd.Series[Any], *, kept: bool) -> None:
    """Mark the rows that are left, and say how to go on."""
    done = sum(error == "" for error in answers.errors)
    left = text_of(cancelled_row(0, done, len(images)))
    for row, (error, cell) in enumerate(zip(answers.errors, images, strict=True)):
        if error is None or error.startswith("Cancelled"):
            answers.errors[row] = NO_IMAGE if is_null(cell) else left
    answers.interrupted = True
    interrupted(done, len(images), kept=kept, stacklevel=5)


def as_column(values: list[Any], kind: str, index: pd.Index[Any]) -> pd.Series[Any]:
    """Values as a column: texts in pandas' own string type (``str`` in pandas 3, ``object`` before it)."""
    if kind == "integer":
        return pd.Series(pd.array(values, dtype="Int64"), index=index)
    if kind == "text":
        return _series(values, index, text_dtype())
    return _series(values, index, object)


def _series(values: list[Any], index: pd.Index[Any], dtype: Any) -> pd.Series[Any]:
    column: pd.Series[Any] = pd.Series(values, index=index, dtype=dtype)
    return column


def text_dtype() -> Any:
    """The type of a text column."""
    return "str" if int(pd.__version__.split(".")[0]) >= 3 else object
