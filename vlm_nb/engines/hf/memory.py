"""How much memory a model will take, before it is loaded: from its config, without its weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...errors import OutOfMemory
from .config import kv_bytes_per_token
from .devices import in_gib
from .files import Checkpoint
from .quantization import is_kept, modules_to_keep

# bitsandbytes, bytes a weight: NF4 has half a byte, one uint8 scale for 64 weights and one float for 256
# scales.
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
INT8 = 1.0
# What one request needs beside the weights: its cache, for a prompt with an image and an answer.
WORKING_TOKENS = 2048
SLACK = 1.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Bytes of the weights as asked for, as they would be otherwise, and of one request."""

    weights: int
    working: int
    otherwise: dict[str, int]

    @property
    def needed(self) -> int:
        """Weights and one request."""
        return self.weights + self.working


def skeleton(config: Any, auto_class: Any, *, trust_remote_code: bool) -> nn.Module:
    """The model without its weights, on the meta device."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        model: nn.Module = auto_class.from_config(config, trust_remote_code=trust_remote_code)
    tie: Any = getattr(model, "tie_weights", None)
    if tie is not None:
        tie()
    return model


def estimate(
    model: nn.Module, config: Any, dtype: Any, quantization: str | None, keep: Iterable[str]
) -> Estimate:
    """Estimate for a skeleton. ``dtype`` may be "auto"; ``keep`` are the patterns that quantisation skips."""
    concrete = checkpoint_dtype(config) if dtype == "auto" or dtype is None else dtype
    keep = list(keep) or modules_to_keep(model)
    ways: list[str | None] = [None, "8bit", "4bit"]
    sizes = {way or "16bit": weight_bytes(model, concrete, way, keep) for way in ways}
    weights = int(sizes.pop(quantization or "16bit") * SLACK)
    working = WORKING_TOKENS * kv_bytes_per_token(config, concrete.itemsize)
    return Estimate(weights=weights, working=working, otherwise=sizes)


def checkpoint_dtype(config: Any) -> torch.dtype:
    """The type that the checkpoint says it is in."""
    found = getattr(config, "dtype", None) or getattr(config.get_text_config(decoder=True), "dtype", None)
    named = getattr(torch, found, None) if isinstance(found, str) else found
    return named if isinstance(named, torch.dtype) else torch.float32


def weight_bytes(model: nn.Module, dtype: torch.dtype, quantization: str | None, keep: Iterable[str]) -> int:
    """Bytes of parameters and buffers; tied ones count once."""
    keep = list(keep)
    seen: set[int] = set()
    total = 0.0
    for name, module in model.named_modules():
        quantised = quantization and isinstance(module, nn.Linear) and not is_kept(name, keep)
        for key, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            by_weight = _quantised_bytes(quantization, parameter) if quantised and key == "weight" else None
            total += by_weight if by_weight is not None else parameter.numel() * dtype.itemsize
        total += sum(buffer.numel() * buffer.element_size() for buffer in module.buffers(recurse=False))
    return int(total)


def _quantised_bytes(quantization: str | None, weight: torch.Tensor) -> float:
    if quantization == "4bit":
        return weight.numel() * NF4
    return weight.numel() * INT8 + weight.shape[0] * 4


def refuse_if_too_big(
    name: str, wanted: Estimate, free: int | None, place: str, *, quantised: str | None, freed: int = 0
) -> None:
    """Raise OutOfMemory naming the settings that would fit, where ``free`` bytes on ``place`` are too few.

    ``freed`` bytes more will be there once the loaded models are gone.
    """
    if free is None or wanted.needed <= free + freed:
        return
    free += freed
    fitting = [
        f'quantization="{way}" ({in_gib(size)})'
        for way, size in wanted.otherwise.items()
        if way != "16bit" and size * SLACK + wanted.working <= free
    ]
    others = ['device_map="auto" (spreads it over all GPUs and the CPU, slower)'] if place != "cpu" else []
    advice = " or ".join(fitting + others) or 'a smaller model, or a server with engine="openai"'
    how = f" in {quantised}" if quantised else ""
    room = f"{in_gib(free)} free"
    if freed:
        room = f"at most {room}, even without the models that are loaded now (they stay)"
    raise OutOfMemory(
        f"out of memory before loading: {name}{how} needs about {in_gib(wanted.needed)}, and {place} has "
        f"{room}. {'Use' if freed else 'Unload other models, or use'} {advice}."
    )


def from_files(checkpoint: Checkpoint, config: Any) -> Estimate:
    """The estimate for a checkpoint that is quantised already: what its files weigh."""
    working = WORKING_TOKENS * kv_bytes_per_token(config, 2)
    return Estimate(weights=int(checkpoint.weight_bytes * SLACK), working=working, otherwise={})


def measured(model: nn.Module) -> int:
    """Bytes of a loaded model's parameters, buffers and quantisation scales; shared storage counts once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(model)}
    return sum(storages.values())


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    found = [*model.parameters(), *model.buffers()]
    for parameter in list(found):
        state = getattr(parameter, "quant_state", None)
        for holder in (state, getattr(state, "state2", None), parameter):
            found += [
                value
                for name in ("absmax", "code", "offset", "SCB")
                if isinstance(value := getattr(holder, name, None), torch.Tensor)
            ]
    return [tensor for tensor in found if tensor.device.type != "meta"]
