"""Outcomes as a DataFrame. The one place below the accessor that needs pandas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .errors import MissingDependency
from .results import Outcome, outcome_rows

if TYPE_CHECKING:
    from pandas import DataFrame


def to_frame(outcomes: Outcome | Sequence[Outcome]) -> DataFrame:
    """Return one row per input: source, caption, boxes, grounding, image size, prompt, model, seconds, error.

    ``boxes`` holds plain dicts with ``bbox`` (x_min, y_min, x_max, y_max) in 0..1 of the upright original
    image. Raises MissingDependency without pandas.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingDependency("to_frame needs pandas: pip install 'vlm_nb[pandas]'") from None
    items = [outcomes] if isinstance(outcomes, Outcome) else list(outcomes)
    return pd.DataFrame(outcome_rows(items))
