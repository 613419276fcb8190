"""Building the model: classes, keywords, and adapters."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ...errors import LoadError, MissingDependency, ModelNotFound, OptionError, UnsafeModel, VLMError
from ..spec import LoadSpec
from .devices import release_memory
from .failures import first_line, from_transformers
from .files import Checkpoint

MISSING_SHARE = 0.01


def auto_class(config: Any, *, trust_remote_code: bool) -> Any:
    """The Auto class that builds this config."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText

    remote = getattr(config, "auto_map", None) or {}
    if trust_remote_code and remote and "AutoModelForImageTextToText" not in remote:
        return AutoModelForCausalLM if "AutoModelForCausalLM" in remote else AutoModel
    return AutoModelForImageTextToText


def build(
    checkpoint: Checkpoint,
    config: Any,
    spec: LoadSpec,
    *,
    device: torch.device,
    dtype: Any,
    quantization: Any,
) -> Any:
    """Load the weights into a model ready to generate. Raises a LoadError or OutOfMemory."""
    kind = auto_class(config, trust_remote_code=spec.trust_remote_code)
    options: dict[str, Any] = {
        "config": config,
        "dtype": dtype,
        "device_map": spec.device_map if spec.device_map is not None else {"": device},
        "use_safetensors": True,
        "trust_remote_code": spec.trust_remote_code,
        "local_files_only": not spec.trust_remote_code,
        "output_loading_info": True,
    }
    if quantization is not None:
        options["quantization_config"] = quantization
    if spec.attn_implementation is not None:
        asked = spec.attn_implementation
        options["attn_implementation"] = asked if isinstance(asked, str) else dict(asked)
    if spec.low_cpu_mem_usage is not None:
        options["low_cpu_mem_usage"] = spec.low_cpu_mem_usage
    options |= spec.model_kwargs
    failure: VLMError | None = None
    try:
        with quiet():
            model, report = kind.from_pretrained(checkpoint.folder, **options)
    except Exception as error:  # noqa: BLE001 - loading fails in many ways
        failure = from_transformers(error, checkpoint.name, checkpoint.weight_bytes)
    if failure is not None:  # outside of the except block: its frames would keep a half-built model alive
        release_memory()
        raise failure
    _check_complete(checkpoint.name, model, report)
    return model.eval()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars or reports of transformers: an engine's thread never prints."""
    import transformers

    logging: Any = transformers.utils.logging
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def check_attention(asked: str | Mapping[str, str] | None, config: Any) -> None:
    """Raise MissingDependency for an attention whose package is not installed.

    Raises OptionError for a part that ``config`` does not have: transformers would pass over it in silence.
    """
    for part in asked if isinstance(asked, Mapping) else ():
        if part and part not in config.sub_configs:
            parts = ", ".join(sorted(config.sub_configs)) or "none"
            raise OptionError(f"attn_implementation: this model has no part {part!r}. Its parts: {parts}.")
    names = asked.values() if isinstance(asked, Mapping) else [asked]
    if "flash_attention_2" in names and importlib.util.find_spec("flash_attn") is None:
        raise MissingDependency(
            'attn_implementation="flash_attention_2" needs flash-attn (and a GPU of the Ampere generation or '
            "newer): pip install flash-attn --no-build-isolation. Leave attn_implementation out to use sdpa."
        )


def attention_of(config: Any) -> str | None:
    """How the model attends; where parts differ, by parts."""
    whole: str | None = getattr(config, "_attn_implementation", None)
    parts = ((name, getattr(config, name, None)) for name in sorted(config.sub_configs))
    ways = (
        (name.removesuffix("_config"), getattr(part, "_attn_implementation", None)) for name, part in parts
    )
    found = {name: way for name, way in ways if way}
    if len({whole, *found.values()}) <= 1:
        return whole
    return ", ".join(f"{name}: {way}" for name, way in found.items())


def _check_complete(name: str, model: Any, report: dict[str, Any]) -> None:
    """Weights that the files lack are random numbers: refuse a model that has many."""
    missing = sorted(report.get("missing_keys") or ())
    sizes = {key: value.numel() for key, value in model.state_dict(keep_vars=True).items()}
    lost = sum(sizes.get(key, 0) for key in missing)
    if lost > MISSING_SHARE * max(sum(sizes.values()), 1):
        raise LoadError(
            f"{name}: the files lack {len(missing)} of the model's tensors ({', '.join(missing[:3])}, …), "
            "which would be random numbers. The checkpoint is incomplete, or of another architecture than "
            "its config says."
        )


def check_adapter(adapter: Checkpoint) -> None:
    """Raise ModelNotFound, UnsafeModel or MissingDependency for what is no adapter that can be used."""
    if "adapter_config.json" not in adapter.sizes:
        raise ModelNotFound(f"{adapter.name} is no PEFT adapter: there is no adapter_config.json.")
    if "adapter_model.safetensors" not in adapter.sizes:
        raise UnsafeModel(
            f"{adapter.name} has no adapter_model.safetensors (pickle weights are not opened); save it "
            "again with safe_serialization=True."
        )
    if importlib.util.find_spec("peft") is None:
        raise MissingDependency("an adapter needs PEFT: pip install peft")


def add_adapter(model: Any, adapter: Checkpoint) -> None:
    """Put a checked PEFT adapter on the model. Raises LoadError where it does not fit."""
    try:
        with quiet():
            model.load_adapter(str(adapter.folder))
    except Exception as error:  # noqa: BLE001 - PEFT raises anything
        raise LoadError(f"the adapter {adapter.name} does not fit this model: {first_line(error)}") from None
