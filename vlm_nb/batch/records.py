"""A prediction as JSON and back, without what belongs to its row: source, index, prompt, model, preview."""

from __future__ import annotations

import json
from typing import Any

from ..asking import Job
from ..request import Usage
from ..results import GroundedPhrase, Prediction
from ..schema import as_schema

_OF_THE_ROW = ("source", "index", "prompt", "model")


def to_record(prediction: Prediction) -> str:
    """Return the answer as one line of JSON."""
    plain = prediction.to_dict()
    for name in _OF_THE_ROW:
        del plain[name]
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def from_record(record: str, job: Job, model: str, position: int | None = None) -> Prediction:
    """Rebuild the prediction of ``to_record`` as the answer to ``job`` at ``position`` of the inputs.

    Raises ValueError, KeyError, TypeError or SchemaError for a record that is none.
    """
    plain: dict[str, Any] = json.loads(record)
    plain["grounded_phrases"] = tuple(_phrase(phrase) for phrase in plain["grounded_phrases"])
    plain["usage"] = Usage(**plain["usage"])
    plain["image_size"] = tuple(plain["image_size"]) if plain["image_size"] else None
    plain["notes"] = tuple(plain["notes"])
    plain["parsed"] = _parsed(plain["parsed"], job.schema)
    return Prediction(**plain, prompt=job.prompt, model=model, source=job.label, index=position)


def _phrase(plain: dict[str, Any]) -> GroundedPhrase:
    plain["bbox"] = tuple(plain["bbox"])
    plain["point"] = tuple(plain["point"]) if plain["point"] else None
    return GroundedPhrase(**plain)


def _parsed(value: Any, schema: Any) -> Any:
    """The schema's own type again."""
    return value if value is None or schema is None else as_schema(schema).build(value)
