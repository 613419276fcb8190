"""Outcomes as a DataFrame. The one place below the accessor that needs pandas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from . import extras
from .errors import MissingDependency, OptionError
from .results import Outcome, outcome_rows

if TYPE_CHECKING:
    from pandas import DataFrame


def to_frame(outcomes: Outcome | Sequence[Outcome]) -> DataFrame:
    """Return one row per input: source, caption, boxes, grounding, image size, prompt, model, seconds, error.

    ``boxes`` holds plain dicts with ``bbox`` (x_min, y_min, x_max, y_max) in 0..1 of the upright original
    image. Raises MissingDependency without pandas, OptionError for other things than outcomes.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingDependency(f"to_frame needs pandas: {extras.command('pandas')}") from None
    if not isinstance(outcomes, Iterable):
        raise OptionError(f"{outcomes!r} is no list of outcomes; give what model(source=[...]) returned.")
    items = [outcomes] if isinstance(outcomes, Outcome) else list(outcomes)
    if strange := next((item for item in items if not isinstance(item, Outcome)), None):
        raise OptionError(f"{type(strange).__name__} is no Outcome; give what model(source=[...]) returned.")
    return pd.DataFrame(outcome_rows(items))
