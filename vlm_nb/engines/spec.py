"""What to load and how: the validated keywords of ``vlm_nb.load``."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import OptionError, unknown_option
from ..request import GenerationConfig, settings_of
from .keywords import check, plain

QUANTIZATIONS = ("4bit", "8bit")
SECRET_ARGS = ("default_headers", "default_query")
"""``engine_args`` that may hold keys."""
DELIVERY_ARGS = ("num_cpus", "max_restarts", "retries", "backoff", "timeout", "media_folder")
"""``engine_args`` of ray and openai that say how an answer is fetched; what it says they cannot change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """Everything that decides which model is loaded, and how.

    ``model`` is a hub id, a local folder, "demo", or the name that a server knows. ``quantization`` is
    "4bit" (NF4, double quantisation), "8bit" or None. ``max_pixels``/``min_pixels`` bound the area of a
    prepared image. ``attn_implementation`` is for the whole model, or a mapping for parts of its
    configuration. ``token`` and ``api_key`` never show in a repr. ``model_kwargs`` and ``engine_args`` pass
    through verbatim to transformers and to the engine.
    """

    model: str
    engine: str = "transformers"
    quantization: str | None = None
    quantization_config: Any = None
    device_map: Any = None
    dtype: Any = None
    attn_implementation: str | Mapping[str, str] | None = None
    low_cpu_mem_usage: bool | None = None
    max_pixels: int | None = None
    min_pixels: int | None = None
    max_batch_size: int | None = None
    revision: str | None = None
    adapter: str | None = None
    chat_template: str | None = None
    processor: str | None = None
    processor_revision: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    local_files_only: bool = False
    trust_remote_code: bool = False
    compile: bool = False
    family: str | None = None
    base_url: str | None = None
    api_key: str | Callable[[], str] | None = field(default=None, repr=False)
    max_concurrency: int | None = None
    error_threshold: float | None = None
    adjust_every: float | None = None
    allow_local_paths: bool = False
    image_quality: int | None = None
    tensor_parallel: int | None = None
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    replicas: int | None = None
    gpus_per_replica: float | None = None
    address: str | None = None
    script: Any = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    engine_args: Mapping[str, Any] = field(default_factory=dict, repr=False)
    generation: Mapping[str, Any] = field(default_factory=dict)
    quantization_skips: Callable[[str | None], tuple[str, ...]] | None = field(
        default=None, compare=False, repr=False
    )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The keywords that ``load`` takes beside the model."""
        names = [
            f.name
            for f in dataclasses.fields(cls)
            if f.name not in ("model", "generation", "quantization_skips")
        ]
        return (*names, "load_in_4bit", "load_in_8bit", "generation_config", "keep")

    @classmethod
    def from_keywords(cls, model: str, **keywords: Any) -> LoadSpec:
        """Check ``keywords`` and build the spec.

        Raises OptionError for an unknown keyword or generation key (naming the nearest), a value of the wrong
        kind, a quantisation that is not one, or two that disagree.
        """
        for key in keywords:
            if key not in cls.names() or key == "keep":
                raise unknown_option("load keyword", key, cls.names())
        keywords = plain(keywords)
        check(keywords)
        keywords["quantization"] = _quantization(keywords)
        keywords["generation"] = generation = settings_of(keywords.pop("generation_config", None))
        GenerationConfig().updated(generation)
        unset = {name for name, value in keywords.items() if value is None}
        return cls(model=model, **{name: keywords[name] for name in keywords if name not in unset})

    def identity(self) -> tuple[Any, ...]:
        """A comparable value: equal for two specs that load the same thing. Holds no key in clear."""
        values = {f.name: repr(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return (self.model, self.engine, hashlib.sha256(repr(values).encode()).hexdigest())

    def answering_args(self) -> dict[str, Any]:
        """The ``engine_args`` that can change an answer."""
        return {key: value for key, value in self.engine_args.items() if key not in DELIVERY_ARGS}

    def changed(self) -> dict[str, Any]:
        """The fields that differ from their defaults, without secrets: for repr, ledger and reproduction."""
        plain = LoadSpec(model=self.model)
        hidden = ("token", "api_key", "model", "quantization_skips")
        names = [f.name for f in dataclasses.fields(self) if f.name not in hidden]
        found = {n: getattr(self, n) for n in names if getattr(self, n) != getattr(plain, n)}
        if "engine_args" in found:
            found["engine_args"] = {k: "…" if k in SECRET_ARGS else v for k, v in self.engine_args.items()}
        return found


def refuse(spec: LoadSpec, names: Iterable[str], hint: str = "") -> None:
    """Raise OptionError where ``spec`` sets one of ``names``, which mean nothing to its engine."""
    plain = LoadSpec(model=spec.model)
    for name in names:
        if getattr(spec, name) != getattr(plain, name):
            raise OptionError(f'{name}= means nothing to engine="{spec.engine}"{hint}.')


def _quantization(keywords: dict[str, Any]) -> str | None:
    asked = {name for name in QUANTIZATIONS if keywords.pop(f"load_in_{name}", None)}
    given = keywords.get("quantization")
    if given is not None and str(given).lower() in ("none", "16bit"):
        given = None
    if given is not None:
        if given not in QUANTIZATIONS:
            raise OptionError(f"quantization={given!r}: expected one of {', '.join(QUANTIZATIONS)}, or None.")
        asked.add(str(given))
    if len(asked) > 1:
        raise OptionError("4-bit and 8-bit were both asked for; choose one.")
    if asked and keywords.get("quantization_config") is not None:
        raise OptionError("give either quantization= (or load_in_*) or quantization_config=, not both.")
    return asked.pop() if asked else None
