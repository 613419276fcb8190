"""A question for each row: a text for all, a Series aligned by index, or a function of the row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from ..errors import OptionError, PromptError
from .columns import is_null

PromptOf = Callable[[int], str | None]
"""Row number → its prompt; raises PromptError for that row."""


def prompt_of(question: Any, table: pd.DataFrame | pd.Series[Any], what: str = "question") -> PromptOf:
    """Return the function from row number to prompt. Braces and the like are plain text.

    Raises OptionError for a Series that does not fit the table, and for anything that is no question.
    """
    if question is None or isinstance(question, str):
        return lambda row: question
    if isinstance(question, pd.Series):
        return _each(_aligned(question, table.index, what), what)
    if callable(question):
        return _called(question, table, what)
    raise OptionError(
        f"a {what} is a text, a Series or a function of the row, not {type(question).__name__} "
        f"{str(question)[:60]!r}."
    )


def _aligned(question: pd.Series[Any], index: pd.Index[Any], what: str) -> pd.Series[Any]:
    if question.index.equals(index):
        return question
    if len(question) != len(index):
        raise OptionError(f"the {what} Series has {len(question)} rows, the table {len(index)}.")
    if question.index.is_unique and index.is_unique and index.isin(question.index).all():
        return question.reindex(index)
    raise OptionError(
        f"the {what} Series has another index than the table; give it the same one "
        f"(for example {what}.set_axis(df.index))."
    )


def _each(questions: pd.Series[Any], what: str) -> PromptOf:
    def prompt(row: int) -> str:
        return _text(questions.iloc[row], what)

    return prompt


def _called(function: Callable[[Any], Any], table: pd.DataFrame | pd.Series[Any], what: str) -> PromptOf:
    def prompt(row: int) -> str:
        try:
            made = function(table.iloc[row])
        except Exception as error:  # noqa: BLE001 - the function is the user's, the error its row's
            reason = f"{type(error).__name__}: {error}"
            raise PromptError(f"the {what} function failed on this row ({reason}).") from None
        return _text(made, what)

    return prompt


def _text(value: Any, what: str) -> str:
    if is_null(value):
        raise PromptError(f"this row has no {what} (null).")
    return str(value)
