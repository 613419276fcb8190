"""From a ``Request`` to the JSON of a chat completion. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import CapabilityError
from ...request import GenerationConfig, Message, Request
from .dialects import DIALECTS
from .pictures import ImageURL

if TYPE_CHECKING:
    from PIL.Image import Image


def chat_messages(request: Request, image_url: Callable[[Image], ImageURL]) -> list[dict[str, Any]]:
    """Return the messages with each image in its place; a message without images is a plain text."""
    urls = [image_url(image) for image in request.images]
    return [{"role": message.role, "content": _content(message, urls)} for message in request.messages]


def _content(message: Message, urls: list[ImageURL]) -> str | list[dict[str, Any]]:
    if all(isinstance(part, str) for part in message.parts):
        return message.text
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": urls[part.index]}}
        for part in message.parts
    ]


def settings(request: Request, server: str) -> dict[str, Any]:
    """Return the keywords of ``chat.completions.create`` beside model and messages.

    Greedy is sent as ``temperature=0``, because servers sample unless told not to. What only this ``server``
    knows goes into ``extra_body``. Raises CapabilityError for a setting that it would ignore.
    """
    config, dialect = request.generation, DIALECTS[server]
    sent: dict[str, Any] = {"max_tokens": config.max_new_tokens, **_sampling(config)}
    if config.stop:
        sent["stop"] = list(config.stop)
    extra = _extra(config, server)
    if request.keep_special_tokens and dialect.special_tokens:
        extra["skip_special_tokens"] = False
    if request.schema is not None:
        _constrain(sent, extra, request.schema, server)
    if extra:
        sent["extra_body"] = extra
    return sent


NAMES = {"max_tokens": "max_tokens", "stream_options": "stream_options"}
"""Our keyword → what the server calls it; "" for one that it refuses."""


def renamed(keywords: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the keywords under the server's names, without those that it refuses."""
    known = {names.get(key, key): value for key, value in keywords.items()}
    known.pop("", None)
    return known


def names_learnt(refusal: str, used: Mapping[str, str]) -> dict[str, str]:
    """Return ``used`` with what a refusal tells.

    OpenAI's newer models take the limit as ``max_completion_tokens``; some servers know no stream_options.
    """
    names = dict(used)
    if "max_completion_tokens" in refusal and used["max_tokens"] == "max_tokens":
        names["max_tokens"] = "max_completion_tokens"
    if "stream_options" in refusal:
        names["stream_options"] = ""
    return names


def _sampling(config: GenerationConfig) -> dict[str, Any]:
    if not config.sampling:
        return {"temperature": 0.0}
    given = {"temperature": config.temperature, "top_p": config.top_p, "seed": config.seed}
    return {key: value for key, value in given.items() if value is not None}


def _extra(config: GenerationConfig, server: str) -> dict[str, Any]:
    if config.num_beams > 1:
        raise CapabilityError("num_beams: servers do not search with beams; leave it at 1.")
    asked = {"repetition_penalty": config.repetition_penalty, "min_new_tokens": config.min_new_tokens or None}
    if config.sampling:
        asked["top_k"] = config.top_k
    known = DIALECTS[server].keys
    wanted = {key: value for key, value in asked.items() if value is not None}
    for key in wanted:
        if key not in known:
            raise CapabilityError(
                f"{key}: a server of the kind {server!r} is not known to have this setting. If yours has it, "
                f'pass engine_args={{"extra_body": {{"{key}": ...}}}}, or its kind: {{"server": "vllm"}}.'
            )
    return {known[key]: value for key, value in wanted.items()}


def _constrain(sent: dict[str, Any], extra: dict[str, Any], schema: Mapping[str, Any], server: str) -> None:
    """Add what makes the server keep to ``{"json": …}``, ``{"regex": …}`` or ``{"choices": […]}``."""
    ((kind, value),) = schema.items()
    dialect = DIALECTS[server]
    if kind == "json" and dialect.schema:
        closed = {"name": "answer", "schema": closed_schema(value), "strict": True}
        sent["response_format"] = {"type": "json_schema", "json_schema": closed}
    elif kind != "json" and dialect.pattern is not None:
        regex = value if kind == "regex" else "|".join(f"({re.escape(choice)})" for choice in value)
        extra.update(dialect.pattern(regex))
    else:
        hint = " Give a JSON schema or a pydantic model instead." if kind != "json" and dialect.schema else ""
        raise CapabilityError(f"a server of the kind {server!r} cannot keep to a {kind} schema.{hint}")


_NAMED = frozenset({"properties", "$defs", "definitions", "patternProperties"})
_VALUES = frozenset({"enum", "const", "default", "examples", "required"})


def closed_schema(schema: Any) -> Any:
    """Close every object of a JSON schema: no other properties, all required.

    OpenAI's strict mode takes no other objects, and a constrained model would fill them anyway.
    """
    if isinstance(schema, list):
        return [closed_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    done = {key: _closed_value(key, value) for key, value in schema.items()}
    if isinstance(done.get("properties"), dict):
        done.setdefault("additionalProperties", False)
        done["required"] = list(done["properties"])
    return done


def _closed_value(key: str, value: Any) -> Any:
    if key in _NAMED and isinstance(value, dict):
        return {name: closed_schema(item) for name, item in value.items()}
    return value if key in _VALUES else closed_schema(value)
