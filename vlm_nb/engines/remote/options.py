"""The keywords of ``load`` that mean something to a server, checked before anything is sent."""

from __future__ import annotations

import dataclasses

from ...errors import OptionError, unknown_option
from ..spec import LoadSpec
from .dialects import DIALECTS
from .presets import gguf_command

ENGINE_ARGS = (
    "backoff",
    "default_headers",
    "default_query",
    "extra_body",
    "logprobs",
    "media_folder",
    "retries",
    "server",
    "timeout",
)
MEANINGFUL = frozenset(
    (
        *("model", "engine", "family", "generation", "quantization_skips", "max_pixels", "min_pixels"),
        *("base_url", "api_key", "engine_args", "allow_local_paths", "image_quality"),
        *("max_concurrency", "error_threshold", "adjust_every"),
    )
)


def check(spec: LoadSpec) -> None:
    """Raise OptionError for keywords that a server never hears of, and for a GGUF file without a server."""
    plain = LoadSpec(model=spec.model)
    for name in (field.name for field in dataclasses.fields(spec)):
        if name not in MEANINGFUL and getattr(spec, name) != getattr(plain, name):
            hint = ' (a setting asks for it: quantization="none" overrides)' if name == "quantization" else ""
            raise OptionError(f'{name}= means nothing to engine="openai": the server decides that{hint}.')
    for key in spec.engine_args:
        if key not in ENGINE_ARGS:
            raise unknown_option("openai engine_args key", key, ENGINE_ARGS)
    server = str(spec.engine_args.get("server", "openai"))
    if server not in DIALECTS:
        raise unknown_option("kind of server", server, DIALECTS)
    for key in ("timeout", "retries", "backoff"):
        value = spec.engine_args.get(key, 0)
        if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
            raise OptionError(f"engine_args: {key}={value!r}: expected a number, 0 or more.")
    if spec.base_url is None and spec.model.lower().endswith(".gguf"):
        raise OptionError(gguf_command(spec.model))
