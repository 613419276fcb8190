"""What the values of ``load`` keywords may be, checked before anything is looked up or freed."""

from __future__ import annotations

import numbers
import os
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import OptionError

Check = tuple[str, Callable[[Any], bool]]


def _number(low: float, high: float) -> Check:
    return f"a number from {low:g} to {high:g}", lambda v: _is(v, numbers.Real) and low <= v <= high


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


_TEXT: Check = "a text", _is_text
_PATH: Check = "a name or a folder", lambda v: isinstance(v, (str, os.PathLike)) and bool(str(v).strip())
_SWITCH: Check = "True or False", lambda v: isinstance(v, bool)
_COUNT: Check = "a whole number above 0", lambda v: _is(v, numbers.Integral) and v > 0
_DICT: Check = "a dict with names as keys", _is_dict

_CHECKS: dict[str, Check] = {
    **dict.fromkeys(("engine", "revision", "processor_revision", "chat_template"), _TEXT),
    **dict.fromkeys(("family", "base_url", "address"), _TEXT),
    "attn_implementation": (
        'a text, or a dict such as {"vision_config": "flash_attention_2"}',
        lambda v: _is_text(v) or (_is_dict(v) and bool(v) and all(_is_text(name) for name in v.values())),
    ),
    **dict.fromkeys(("adapter", "processor"), _PATH),
    **dict.fromkeys(("low_cpu_mem_usage", "local_files_only", "trust_remote_code", "compile"), _SWITCH),
    "allow_local_paths": _SWITCH,
    **dict.fromkeys(("max_pixels", "min_pixels", "max_batch_size", "max_concurrency"), _COUNT),
    **dict.fromkeys(("tensor_parallel", "max_model_len", "replicas"), _COUNT),
    **dict.fromkeys(("error_threshold", "gpu_memory_utilization"), _number(0, 1)),
    "adjust_every": _number(0, 86_400),
    "gpus_per_replica": _number(0, 1_024),
    "image_quality": ("a whole number from 1 to 100", lambda v: _is(v, numbers.Integral) and 1 <= v <= 100),
    "token": ("a text, True or False", lambda v: isinstance(v, str | bool)),
    "api_key": ("a text, or a function that returns one", lambda v: isinstance(v, str) or callable(v)),
    "quantization_config": ("a configuration of transformers", lambda v: hasattr(v, "to_dict")),
    **dict.fromkeys(("model_kwargs", "engine_args"), _DICT),
}
_SECRET = ("token", "api_key", "engine_args")


def check(keywords: Mapping[str, Any]) -> None:
    """Raise OptionError for a value of the wrong kind; None leaves a keyword out. Secrets are not shown."""
    for name, value in keywords.items():
        if value is None or name not in _CHECKS:
            continue
        expected, fits = _CHECKS[name]
        if not fits(value):
            shown = type(value).__name__ if name in _SECRET else repr(value)[:200]
            raise OptionError(f"{name}={shown}: expected {expected}.")


def plain(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords with folders as texts."""
    paths = {name: os.fspath(v) for name, v in keywords.items() if isinstance(v, os.PathLike)}
    return {**keywords, **paths}
