"""What makes two rows the same question: the ledger's key."""

from __future__ import annotations

import functools
import hashlib
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..asking import Asker, Job
from ..engines.base import Engine
from ..request import GenerationConfig, ImageRef, Message
from ..schema import as_schema

if TYPE_CHECKING:
    from ..engines.spec import LoadSpec

KEY_VERSION = 1
"""Raised when this file, or what a record holds, changes its meaning."""


class Answerer(Protocol):
    """What the runner needs of a model: the two steps around an engine, the engine, and how it was loaded."""

    @property
    def asker(self) -> Asker:
        """Prepares jobs and reads completions."""

    @property
    def engine(self) -> Engine:
        """Answers requests."""

    @property
    def spec(self) -> LoadSpec:
        """How the model was loaded."""


def model_identity(answerer: Answerer) -> dict[str, Any] | None:
    """Everything about the model that can change an answer, without credentials.

    None where nothing says which weights answer (a scripted engine without a ``fingerprint``): such answers
    are never kept.
    """
    info, spec, family = answerer.asker.info, answerer.spec, answerer.asker.family
    if not (info.fingerprint or info.revision or spec.base_url):
        return None
    return {
        "key": KEY_VERSION,
        "model": [spec.model, info.model_type, info.fingerprint, info.revision],
        "numbers": [info.dtype, info.quantization, _plain(spec.quantization_config)],
        "parts": [_weights(spec.adapter), _weights(spec.processor), spec.processor_revision],
        "template": _digest(info.chat_template or spec.chat_template or ""),
        "images": [info.min_pixels, info.max_pixels, info.patch, info.image_size],
        "asked": [spec.min_pixels, spec.max_pixels, spec.max_model_len, spec.image_quality],
        "family": [family.name, family.version, _plain(family.processor_kwargs)],
        "engine": [answerer.engine.name, public_base(spec.base_url)],
        "extras": [_plain(spec.model_kwargs), spec.answering_args()],
    }


def public_base(url: str | None) -> str | None:
    """A server's address without user info, query and fragment."""
    if not url:
        return None
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _weights(place: str | None) -> Any:
    """A hub name as it is; a local folder with its files' names, sizes and times: it may be trained again."""
    if not place or not Path(place).expanduser().is_dir():
        return place
    folder = Path(place).expanduser()
    files = [(str(p.relative_to(folder)), p.stat()) for p in sorted(folder.rglob("*")) if p.is_file()]
    return [str(folder), *((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)]


class Keys:
    """Makes the keys of one run: the model's part is hashed once."""

    def __init__(self, identity: Mapping[str, Any] | None) -> None:
        self._base = _canonical(identity).encode()

    def key(self, job: Job, contents: Sequence[str], occurrence: int = 0) -> bytes:
        """Return the 32-byte key of ``job`` over images with those content keys."""
        asked = [
            contents,
            [job.prompt, job.phrase, job.system, job.asked, job.joining, occurrence],
            [_message(message) for message in (*job.history, *((job.turn,) if job.turn else ()))],
            job.turn is None,
        ]
        text = f"{_canonical(asked)}{_settings(job.generation)}{schema_text(job.schema)}"
        digest = hashlib.sha256(self._base)
        digest.update(text.encode("utf-8", "surrogatepass"))
        return digest.digest()


def _message(message: Message) -> list[Any]:
    return [message.role, *([part.index] if isinstance(part, ImageRef) else part for part in message.parts)]


@functools.lru_cache(maxsize=256)
def _settings(config: GenerationConfig) -> str:
    return _canonical(config.to_dict())


def schema_text(schema: Any) -> str:
    """A schema as text: the constraint that engines see."""
    return "" if schema is None else _canonical(as_schema(schema).constraint)


def _plain(value: Any) -> Any:
    """A configuration object as comparable values."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return dict(value) if isinstance(value, Mapping) else value


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=repr)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
