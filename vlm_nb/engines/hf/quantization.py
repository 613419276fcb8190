"""bitsandbytes: the language model in 4 or 8 bit, everything else as it is.

transformers leaves only tied, last and output modules alone by itself, so a vision tower would be
quantised, and boxes suffer from that most. Patterns in ``llm_int8_skip_modules`` match from the start of a
module's full name (or as its end), and a list of one's own replaces the defaults: it must name the output
head and tied modules too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ...errors import MissingDependency, OptionError, QuantizationUnavailable
from ..spec import LoadSpec

# Input and output features must be multiples of these, in bitsandbytes' packing for CPUs with AVX512-BF16.
CPU_BLOCK = (64, 32)
NOTES = {
    "bitsandbytes.autograd._functions": "MatMul8bitLt: inputs will be cast",
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
}


def quantization_config(
    spec: LoadSpec, config: Any, skips: list[str], dtype: Any, device: torch.device
) -> Any:
    """The transformers quantisation config for ``spec``, or None.

    Raises QuantizationUnavailable, OptionError.
    """
    own = own_quantization(config)
    if own is not None and (spec.quantization or spec.quantization_config is not None):
        if own == spec.quantization:
            return None
        raise OptionError(
            f"{spec.model} is already quantised ({own}) and loads as it is; leave quantization= out, or "
            "load the unquantised original."
        )
    if spec.quantization_config is not None:
        return spec.quantization_config
    if spec.quantization is None:
        return None
    check_bitsandbytes(device)
    import transformers

    make: Any = transformers.BitsAndBytesConfig
    if spec.quantization == "8bit":
        return make(load_in_8bit=True, llm_int8_skip_modules=skips)
    return make(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype if isinstance(dtype, torch.dtype) else torch.float32,
        llm_int8_skip_modules=skips,
    )


def own_quantization(config: Any) -> str | None:
    """How the checkpoint itself is quantised ("awq", "gptq", "4bit", …), or None."""
    found = getattr(config, "quantization_config", None)
    return None if found is None else name_of(found)


def name_of(quantization: Any) -> str:
    """A short name for a transformers quantisation config (or its dict)."""
    values = quantization if isinstance(quantization, dict) else quantization.to_dict()
    if values.get("load_in_4bit") or values.get("_load_in_4bit"):
        return "4bit"
    if values.get("load_in_8bit") or values.get("_load_in_8bit"):
        return "8bit"
    return str(values.get("quant_method") or "quantised")


def check_bitsandbytes(device: torch.device) -> None:
    """Raise MissingDependency or QuantizationUnavailable where bitsandbytes cannot work on ``device``."""
    try:
        import bitsandbytes
    except ImportError as error:
        raise MissingDependency(
            f"quantization needs bitsandbytes, which cannot be imported ({error}): pip install bitsandbytes. "
            f"{_alternatives(device)}"
        ) from None
    supported = set(getattr(bitsandbytes, "supported_torch_devices", {"cuda"}))
    if device.type not in supported:
        raise QuantizationUnavailable(
            f"bitsandbytes cannot quantise on {device.type!r} (it can on {', '.join(sorted(supported))}). "
            f"{_alternatives(device)}"
        )


def _alternatives(device: torch.device) -> str:
    cpu = "" if device.type == "cpu" else 'use device_map="cpu", '
    return (
        f'Otherwise {cpu}load without quantization in dtype="bfloat16", load a smaller model or one that is '
        'already quantised (AWQ, GPTQ), or ask a server with engine="openai".'
    )


def modules_to_keep(model: nn.Module, family_skips: Iterable[str] = ()) -> list[str]:
    """Names of the modules that stay in 16 bit: all but the language model; output head; tied modules.

    ``model`` may be on the meta device. The language model is what ``get_decoder`` returns: its siblings are
    vision tower and projector, whatever they are called.
    """
    names = {id(module): name for name, module in model.named_modules()}
    keep = set(family_skips)
    decoder = names.get(id(_decoder(model)), "")
    if decoder:
        keep.update(_beside(model, decoder))
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None and names.get(id(head)):
        keep.add(names[id(head)])
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    keep.update(key.removesuffix(".weight") for pair in tied.items() for key in pair)
    return sorted(name for name in keep if name)


def without_kernel(model: nn.Module, keep: list[str]) -> list[str]:
    """Names of further linear layers whose shapes bitsandbytes' 4-bit kernel for the CPU cannot take."""
    linear = {
        name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and not is_kept(name, keep)
    }
    return [n for n, m in linear.items() if m.in_features % CPU_BLOCK[0] or m.out_features % CPU_BLOCK[1]]


def quiet_bitsandbytes() -> None:
    """Keep bitsandbytes' notes (one a product in 8 bit) from standard error: an engine never prints."""
    for name in NOTES:
        logger = logging.getLogger(name)
        if _is_news not in logger.filters:
            logger.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(tuple(NOTES.values()))


def _decoder(model: nn.Module) -> nn.Module | None:
    get = getattr(model, "get_decoder", None)
    found = get() if get is not None else None
    return found if isinstance(found, nn.Module) and found is not model else None


def _beside(model: nn.Module, path: str) -> list[str]:
    """Names of the modules that are not on the way to ``path``, nor below it."""
    beside: list[str] = []
    here, prefix = model, ""
    for part in path.split("."):
        beside += [f"{prefix}{name}" for name, _ in here.named_children() if name != part]
        here, prefix = here.get_submodule(part), f"{prefix}{part}."
    return beside


def is_kept(name: str, keep: Iterable[str]) -> bool:
    """Whether transformers leaves the module ``name`` alone, given the patterns ``keep``."""
    return any(re.match(rf"(?:{key})(?:(?<=\.)|(?=\.|$))", name) or name.endswith(key) for key in keep)
