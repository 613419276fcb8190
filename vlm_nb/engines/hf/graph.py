"""What is compiled of a model: the function of one decode step, and how torch makes one graph of it."""

from __future__ import annotations

import contextlib
import itertools
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import Cache, DynamicLayer

Stock: Any = DynamicLayer
Step = Callable[..., torch.Tensor]
SHARED = "vlm_nb_shared"
_numbers = itertools.count()


def step_of(model: Any) -> Step:
    """What is compiled. ``mask`` is [rows, columns], ``rooms`` are each layer's (keys, values)."""

    def step(
        tokens: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, at: torch.Tensor, rooms: Any
    ) -> torch.Tensor:
        added = torch.zeros(mask.shape, dtype=rooms[0][0].dtype, device=mask.device)
        out = model(
            input_ids=tokens,
            attention_mask=added.masked_fill(mask == 0, -torch.inf)[:, None, None],
            position_ids=positions,
            past_key_values=Cache(layers=[Written(keys, values, at) for keys, values in rooms]),
            use_cache=True,
            logits_to_keep=1,
            return_dict=True,
        )
        scores: torch.Tensor = out.logits[:, -1].float()
        return scores

    return step


def own(step: Any) -> Step:
    """The function with code and name of its own.

    Torch keeps graphs, and counts them, by code object; which sizes were seen to vary it remembers by name,
    and would mistake the sizes of two models for one model's that vary.
    """
    code = step.__code__.replace(co_name=f"step_{next(_numbers)}")
    return types.FunctionType(code, step.__globals__, closure=step.__closure__)


def leave_open(tokens: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, rooms: Any) -> None:
    """Tell torch which sizes of a step's arguments vary; it fails to compile what would fix one of them."""
    mark: Any = torch._dynamo.mark_dynamic
    several = len(tokens) > 1  # torch makes a graph of its own for one
    sized = [(mask, 0, 1), *((part, 0, 2) for pair in rooms for part in pair)]
    for part, rows, columns in sized:
        mark(part, [rows, columns] if several else columns)
    if several:
        mark(tokens, 0)
        mark(positions, positions.ndim - 2)


class Written(Stock):  # type: ignore[misc]
    """A layer inside a graph: the next column ``at`` ([1]) of ``keys`` and ``values`` is written there."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, at: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.at = keys, values, at
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the column; return all keys and values."""
        self.keys.index_copy_(2, self.at, key_states)
        self.values.index_copy_(2, self.at, value_states)
        return self.keys, self.values


def shared_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one token a row; the heads that share keys and values are put side by side, as queries.

    ``query`` is [rows, heads, 1, size], ``key`` and ``value`` [rows, shared heads, columns, size]; the result
    is [rows, 1, heads, size]. The stock function, compiled, would copy all keys and values for every head.
    """
    rows, heads, _, size = query.shape
    packed = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    out = scaled_dot_product_attention(
        packed, key, value, attn_mask=attention_mask, scale=options.get("scaling")
    )
    return out.reshape(rows, 1, heads, value.shape[3]), None


def text_configs(model: Any) -> list[Any]:
    """The configurations from which the language model's layers read how to attend; makes the way known."""
    from transformers import AttentionInterface  # imports torchvision, which may be broken and hidden by now

    AttentionInterface.register(SHARED, shared_attention)
    layers = [part for part in model.modules() if hasattr(part, "layer_idx") and hasattr(part, "config")]
    found = {id(layer.config): layer.config for layer in layers}
    return [config for config in found.values() if not getattr(config, "sub_configs", None)]


@contextlib.contextmanager
def attending(configs: Sequence[Any]) -> Iterator[None]:
    """Let layers attend by ``shared_attention``."""
    before = [config._attn_implementation for config in configs]
    try:
        for config in configs:
            config._attn_implementation = SHARED
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name


class Inductor:
    """Torch's default compiler, counting. Torch keeps it for good, so that it must know no model.

    Once ``closed`` it compiles no more: rows would wait, and the graphs are known to fit all sizes.
    """

    def __init__(self) -> None:
        self.graphs = 0
        self.closed = False

    def __call__(self, graph: Any, inputs: Sequence[Any]) -> Any:
        """Compile a graph. Raises RuntimeError once closed."""
        if self.closed:
            raise RuntimeError("settings of torch have changed since the model was loaded")
        self.graphs += 1
        return self.compile(graph, inputs)

    def compile(self, graph: Any, inputs: Sequence[Any]) -> Any:
        """Return a function that does what ``graph`` does."""
        inductor: Any = torch._dynamo.lookup_backend("inductor")
        return inductor(graph, inputs)
