"""What an answer must look like: a pydantic model, dataclass, JSON schema, regex, list of choices.

``as_schema`` turns any of them into an ``AnswerSchema``: the constraint that an engine applies while it
decodes, and the step from the finished text to a typed value. Engines see only ``constraint``.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from . import extras
from .errors import MissingDependency, SchemaError

MAX_BYTES = 200_000
Kind = Literal["json", "regex", "choices"]


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """One constraint. ``spec`` is a JSON schema, a pattern, or a tuple of choices, as ``kind`` says.

    ``columns`` are the top-level property names of a JSON object, in order: the columns of a table.
    """

    kind: Kind
    spec: Any
    label: str
    build: Callable[[Any], Any] = field(repr=False, default=lambda value: value)

    @property
    def constraint(self) -> Mapping[str, Any]:
        """What ``Request.schema`` holds: ``{"json": …}``, ``{"regex": …}`` or ``{"choices": […]}``."""
        return {self.kind: list(self.spec) if self.kind == "choices" else self.spec}

    @property
    def columns(self) -> tuple[str, ...]:
        """Property names of a JSON object schema; empty for anything else."""
        target = _resolve(self.spec, self.spec) if self.kind == "json" else {}
        return tuple(target.get("properties", {}))

    @property
    def question(self) -> str:
        """A prompt that asks for such an answer, for calls without a question of their own."""
        if self.kind == "choices":
            return f"Which of these fits the image: {', '.join(self.spec)}?"
        form = f"JSON schema: {json.dumps(self.spec)}" if self.kind == "json" else f"regex: {self.spec}"
        return f"Read the image and answer in the form of this {form}"

    def parse(self, text: str) -> Any:
        """Return the typed value of ``text``. Raises SchemaError, with the text, where it is none."""
        try:
            return self.build(json.loads(text) if self.kind == "json" else text.strip())
        except ValueError as error:
            cut = "the answer ended before it was complete" if _looks_cut(error, text) else "it does not fit"
            reason = str(error).splitlines()[0]
            raise SchemaError(f"{self.label}: {cut} ({reason}). The text was: {text[:500]!r}") from None


def as_schema(given: Any) -> AnswerSchema:
    """Read ``given`` as a schema.

    Takes a pydantic model, dataclass, TypedDict, ``Literal[...]`` or another type (``list[int]``), a JSON
    schema as a dict, a compiled regex, or a list of choices. Raises SchemaError for one that is empty, has
    more than 200 KB, refers to what it does not define, or can never be satisfied; MissingDependency where
    pydantic is needed and absent.
    """
    if isinstance(given, AnswerSchema):
        return given
    if isinstance(given, re.Pattern):
        return AnswerSchema("regex", given.pattern, f"regex {given.pattern[:40]!r}", _full_match(given))
    if isinstance(given, list | tuple | set | frozenset):
        return _choices(tuple(sorted(given) if isinstance(given, set | frozenset) else given))
    if isinstance(given, Mapping):
        return _json(dict(given), str(given.get("title", "JSON schema")), lambda value: value)
    if typing.get_origin(given) is Literal and all(isinstance(c, str) for c in typing.get_args(given)):
        return _choices(typing.get_args(given))
    return _typed(given)


def _typed(given: Any) -> AnswerSchema:
    if isinstance(given, str | bytes | int | float) or given is None or inspect.isroutine(given):
        raise SchemaError(
            f"{given!r} is no schema; give a pydantic model, dataclass, TypedDict, Literal, "
            "JSON schema (dict), compiled regex or list of choices."
        )
    try:
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticUserError
    except ImportError:
        raise MissingDependency(f"typed schemas need pydantic: {extras.command('structured')}") from None
    label = getattr(given, "__name__", None) or str(given)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(given)
        return _json(adapter.json_schema(), label, adapter.validate_python)
    except (PydanticUserError, RecursionError) as error:
        raise SchemaError(f"{label} cannot be used as a schema: {str(error).splitlines()[0]}") from None


def _choices(choices: tuple[Any, ...]) -> AnswerSchema:
    if not choices or not all(isinstance(c, str) and c for c in choices):
        raise SchemaError(f"choices must be non-empty texts, not {list(choices)!r}.")
    return AnswerSchema(
        "choices", tuple(dict.fromkeys(choices)), f"one of {', '.join(choices)[:80]}", _among(choices)
    )


def _json(schema: dict[str, Any], label: str, build: Callable[[Any], Any]) -> AnswerSchema:
    try:
        size = len(json.dumps(schema))
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"{label}: not a JSON schema ({error}).") from None
    if not schema:
        raise SchemaError(f"{label}: an empty schema allows anything; leave it out instead.")
    if size > MAX_BYTES:
        raise SchemaError(f"{label}: the schema has {size:,} bytes; at most {MAX_BYTES:,} are taken.")
    try:
        possible = _Checker(schema).possible(schema)
    except RecursionError:
        raise SchemaError(f"{label}: the schema is nested too deeply.") from None
    if not possible:
        raise SchemaError(f"{label}: no value can satisfy this schema (an endless or empty part in it).")
    return AnswerSchema("json", schema, label, build)


def _resolve(node: Any, root: Any) -> dict[str, Any]:
    """Follow local references. Raises SchemaError for one that leads nowhere or leaves the document."""
    seen = []
    while isinstance(node, Mapping) and "$ref" in node:
        reference = str(node["$ref"])
        if reference in seen or not reference.startswith("#"):
            raise SchemaError(f"the schema's reference {reference!r} cannot be followed.")
        seen.append(reference)
        node = root
        for part in filter(None, reference[1:].split("/")):
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(node, Mapping) or key not in node:
                raise SchemaError(f"the schema refers to {reference!r}, which it does not define.")
            node = node[key]
    return dict(node) if isinstance(node, Mapping) else {"__bool__": node}


@dataclass(slots=True)
class _Checker:
    """Looks for a part that no finite value can fill. ``steps`` bounds schemas that branch and branch."""

    root: Any
    steps: int = 20_000

    def possible(self, node: Any, path: tuple[str, ...] = ()) -> bool:
        """Whether some finite value fits ``node``; ``path`` holds the references that are being resolved."""
        self.steps -= 1
        if self.steps < 0:
            raise SchemaError("the schema branches too often to be checked; make it smaller.")
        reference = node.get("$ref") if isinstance(node, Mapping) else None
        if reference in path:
            return False  # only by going round again
        path = (*path, str(reference)) if reference else path
        here = _resolve(node, self.root)
        if here.get("__bool__") is False or here.get("enum") == [] or _empty_range(here):
            return False
        for key in ("anyOf", "oneOf"):
            if key in here and not any(self.possible(part, path) for part in here[key]):
                return False
        return all(self.possible(part, path) for part in _needed(here))


def _needed(node: Mapping[str, Any]) -> list[Any]:
    """The parts of ``node`` that every value of it must fill."""
    properties = node.get("properties", {})
    parts = [properties[name] for name in node.get("required", ()) if name in properties]
    items = [node["items"]] if node.get("minItems", 0) > 0 and "items" in node else []
    return [*node.get("allOf", ()), *parts, *items]


_RANGES = (
    ("minItems", "maxItems"),
    ("minLength", "maxLength"),
    ("minimum", "maximum"),
    ("minProperties", "maxProperties"),
)


def _empty_range(node: Mapping[str, Any]) -> bool:
    return any(
        isinstance(node.get(low), int | float)
        and isinstance(node.get(high), int | float)
        and node[low] > node[high]
        for low, high in _RANGES
    )


def _full_match(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def build(text: str) -> str:
        if pattern.fullmatch(text) is None:
            raise ValueError(f"no match for {pattern.pattern!r}")
        return text

    return build


def _among(choices: tuple[str, ...]) -> Callable[[str], str]:
    def build(text: str) -> str:
        if text not in choices:
            raise ValueError(f"not one of {', '.join(choices)}")
        return text

    return build


def _looks_cut(error: ValueError, text: str) -> bool:
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.pos >= len(text.rstrip()) - 1 or "Unterminated" in error.msg
