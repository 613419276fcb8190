"""An earlier call read back from ``attrs``, to ask the rows again that failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from .. import registry
from ..errors import OptionError
from .call import Call, make_call
from .merge import noted

_EACH = "(one for each row)"


def earlier_call(frame: pd.DataFrame, name: str | None, question: Any, options: Mapping[str, Any]) -> Call:
    """Build the call called ``name`` (the last one for None) again.

    Raises OptionError where there was none, where its questions are not known, or where another model would
    fill the same column.
    """
    calls = noted(frame)["calls"]
    if not calls or (name is not None and name not in calls):
        made = ", ".join(map(repr, calls)) or "none"
        called = "" if name is None else f" called {name!r}"
        raise OptionError(f"no earlier call{called} is noted in this table (there are: {made}).")
    name = name or list(calls)[-1]
    note = calls[name]
    _same_model(note, options)
    if note.get("schema"):
        raise OptionError("typed columns are asked again with extract(...) itself: finished rows are known.")
    prompt = question if question is not None else _prompt(note)
    settings = {**note["settings"], "image": note["image"], "overwrite": True, **options, "name": name}
    return make_call(note["task"], name, prompt, settings)


def _prompt(note: Mapping[str, Any]) -> Any:
    if note["prompt"] == _EACH:
        raise OptionError("that call had a question for each row; give it again: retry_failed(question=...).")
    return note["prompt"]


def _same_model(note: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    if options.get("model") is not None:
        return
    model, before = registry.current(), note["model"]["name"]
    if model.name != before:
        raise OptionError(
            f"those rows were answered by {before!r}, the current model is {model.name!r}; "
            f"load that one, or name the model to use: retry_failed(model={model.name!r})."
        )
