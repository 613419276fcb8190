"""From a ``Request`` to the JSON of a chat completion, and from the streamed chunks back to text.

Pure but for ``shared_file``, which writes an image where a server on the same file system may read it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import CapabilityError
from ...request import FinishReason, GenerationConfig, Message, Request

if TYPE_CHECKING:
    from PIL.Image import Image

ImageURL = str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one kind of server knows beyond the OpenAI interface.

    ``keys`` maps our generation keys to its own; ``special_tokens`` says that it takes
    ``skip_special_tokens``; ``schema`` that it takes ``response_format`` with a JSON schema; ``pattern``
    turns a regular expression into what it takes for one. ``owner`` is what it writes as ``owned_by`` in its
    model list; ``complete_list`` says that the list names all its models.
    """

    owner: str | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    special_tokens: bool = False
    schema: bool = True
    pattern: Callable[[str], dict[str, Any]] | None = None
    complete_list: bool = False


_LIKE_VLLM = {"top_k": "top_k", "repetition_penalty": "repetition_penalty", "min_new_tokens": "min_tokens"}
DIALECTS: dict[str, Dialect] = {
    "openai": Dialect(),
    "vllm": Dialect(
        owner="vllm",
        keys=_LIKE_VLLM,
        special_tokens=True,
        pattern=lambda regex: {"structured_outputs": {"regex": regex}},
        complete_list=True,
    ),
    "sglang": Dialect(
        owner="sglang",
        keys=_LIKE_VLLM,
        special_tokens=True,
        pattern=lambda regex: {"regex": regex},
        complete_list=True,
    ),
    "lmdeploy": Dialect(
        owner="lmdeploy",
        keys={**_LIKE_VLLM, "min_new_tokens": "min_new_tokens"},
        special_tokens=True,
        complete_list=True,
    ),
    "llama.cpp": Dialect(owner="llamacpp", keys={"top_k": "top_k", "repetition_penalty": "repeat_penalty"}),
    "ollama": Dialect(owner="library"),
    "transformers": Dialect(schema=False),
}
"""Server → dialect; "openai" is any other server, which is sent nothing beyond the interface."""


def dialect_of(owner: str | None) -> str:
    """Return the kind of server that writes ``owner`` in its model list; "openai" where it tells nothing."""
    return next((name for name, known in DIALECTS.items() if known.owner and known.owner == owner), "openai")


# Images -----------------------------------------------------------------------------------------------------


def encoded(image: Image, quality: int | None) -> tuple[str, bytes]:
    """Return (media type, bytes): PNG, which loses nothing, or JPEG 4:4:4 of ``quality`` 1..100."""
    target = io.BytesIO()
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if quality is None:
        rgb.save(target, "PNG", compress_level=1)
        return "image/png", target.getvalue()
    rgb.save(target, "JPEG", quality=quality, subsampling=0)
    return "image/jpeg", target.getvalue()


def data_uri(image: Image, quality: int | None) -> ImageURL:
    """Return the image as a data URI."""
    kind, payload = encoded(image, quality)
    return f"data:{kind};base64,{base64.b64encode(payload).decode('ascii')}"


def shared_file(image: Image, quality: int | None, folder: Path) -> ImageURL:
    """Write the image into ``folder``, named by its content, and return its ``file://`` URL."""
    kind, payload = encoded(image, quality)
    path = folder / f"{hashlib.sha256(payload).hexdigest()[:32]}.{kind.removeprefix('image/')}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(payload)
        part.replace(path)
    return path.resolve().as_uri()


# The request ------------------------------------------------------------------------------------------------


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


# The answer -------------------------------------------------------------------------------------------------

_ENDINGS: dict[str, FinishReason] = {"length": "length", "runaway": "runaway"}


@dataclass(slots=True)
class Reading:
    """The answer so far, fed with the chunks of one stream.

    ``ending`` is the server's finish reason, None while the answer is incomplete, "runaway" where we stopped
    reading. Thinking that a server
    sends apart is put back in front as ``<think>…</think>``, where families read it.
    """

    text: str = ""
    ending: str | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    logprobs: list[float] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    _thinking: bool = False

    @property
    def finish_reason(self) -> FinishReason:
        """The ending in our words."""
        return _ENDINGS.get(self.ending or "", "stop")

    def feed(self, chunk: Any) -> None:
        """Take one chunk in. Raises ValueError for something that is no chunk of a chat completion."""
        usage, choices = getattr(chunk, "usage", None), getattr(chunk, "choices", None)
        if usage is None and not isinstance(choices, list):
            raise ValueError("the server's answer is not a chat completion")
        if usage is not None:
            self.prompt_tokens = getattr(usage, "prompt_tokens", None)
            self.new_tokens = getattr(usage, "completion_tokens", None)
        for choice in (choices or [])[:1]:
            self._choice(choice)

    def _choice(self, choice: Any) -> None:
        delta = getattr(choice, "delta", None)
        thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
        said = getattr(delta, "content", None) or getattr(delta, "refusal", None)
        self.ending = getattr(choice, "finish_reason", None) or self.ending
        if isinstance(thought, str):
            self.text += thought if self._thinking else f"<think>{thought}"
            self._thinking = True
        if self._thinking and (isinstance(said, str) or self.ending):
            self.text, self._thinking = f"{self.text}</think>", False
        if isinstance(said, str):
            self.text += said
        for token in getattr(getattr(choice, "logprobs", None), "content", None) or ():
            self.logprobs.append(float(token.logprob))
            self.tokens.append(str(token.token))
