"""One decode step of a model that attends through sdpa: each row attends to little more than its own columns.

Rows end in the same column and begin in columns of their own, so that most columns of a block with rows of
mixed lengths are padding. On a CPU, where reading keys and values is what attention costs, neighbours of like
length attend together (a ``Span``), to the columns of the longest of them. A GPU takes all rows in one call.

Heads that share keys and values are put side by side, as queries: with one token a row that is the same sum,
and neither copies keys and values for every head nor takes sdpa's slow way for shared heads on a CPU.

The model sees no cache: it hands the keys and values of its new tokens to ``attend``, which knows the step's
layers. So the step is a function of tokens and positions, whatever the cache looks like, and can be compiled.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import Cache, DynamicLayer

from . import operators
from .ways import Way

Stock: Any = DynamicLayer
CALL = 1 << 16
"""What a call of sdpa costs on a CPU beside its sums, in elements of queries times columns: 15 µs, where a
column of a row takes 0.04 to 0.16 µs with 128 to 640 elements."""
Span = tuple[int, int, int]
"""Rows from the first to before the second number, and the first column that any of them has."""


@dataclass(frozen=True, slots=True)
class Step:
    """What ``attend`` needs to know: the cache's layers, the spans, and what to add to scores.

    ``mask`` is that, [rows, 1, 1, columns], the new column included; None where nothing is masked.
    """

    layers: Sequence[Any]
    mask: Tensor | None
    spans: Sequence[Span]


_running = threading.local()  # the step that this thread is at


def cut(starts: Sequence[int], width: int, size: int) -> tuple[Span, ...]:
    """The cheapest way to cut rows that begin in columns ``starts`` of ``width`` into spans, in order.

    ``size`` are the elements of a token's queries: the more, the more a column costs beside a call.
    """
    call, costs, begins = CALL // size, [0], [0]
    for end in range(1, len(starts) + 1):
        first, least, best = width, call + end * width, 0
        for begin in range(end - 1, -1, -1):
            first = min(first, starts[begin])
            alone = call + (end - begin) * (width - first)
            if alone > least:  # and so are all longer spans
                break
            if costs[begin] + alone < least:
                least, best = costs[begin] + alone, begin
        costs.append(least)
        begins.append(best)
    found: list[Span] = []
    end = len(starts)
    while end:
        begin = begins[end]
        found.append((begin, end, min(starts[begin:end])))
        end = begin
    return tuple(reversed(found))


def query_size(model: Any) -> int:
    """Elements of a token's queries in one layer."""
    config = model.config.get_text_config(decoder=True)
    heads = int(config.num_attention_heads)
    return heads * int(getattr(config, "head_dim", None) or config.hidden_size // heads)


def next_scores(model: Any, tokens: Tensor, positions: Tensor) -> Tensor:
    """The scores after ``tokens`` ([rows, 1]), float, [rows, vocabulary]; within ``attending`` only."""
    layers: list[Any] = [_Column() for _ in _running.step.layers]
    out = model(
        input_ids=tokens,
        attention_mask=torch.zeros(len(tokens), 1, 1, 1, dtype=model.dtype, device=tokens.device),
        position_ids=positions,
        past_key_values=Cache(layers=layers),
        use_cache=True,
        logits_to_keep=1,
        return_dict=True,
    )
    scores: Tensor = out.logits[:, -1].float()
    return scores


class _Column(Stock):  # type: ignore[misc]
    """A layer's stand-in: the new column goes to ``attend``, by way of the model's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """What came in."""
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Not nothing; how much, no model asks that is told positions and mask."""
        return 1


@contextlib.contextmanager
def attending(model: Any, step: Step) -> Iterator[None]:
    """Let the layers of the language model attend by ``attend``."""
    try:
        _running.step = step
        with _way.taken(model):
            yield
    finally:
        _running.step = None


def _of_text(layer: Any) -> bool:
    return hasattr(layer, "layer_idx") and not getattr(layer.config, "sub_configs", None)


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """Attention of one token a row, as transformers calls it; earlier keys and values are the step's.

    ``query`` is [rows, heads, 1, size], ``key`` and ``value`` are [rows, shared heads, 1, size]; the
    result is [rows, 1, heads, size].
    """
    rows, heads, _, size = query.shape
    shared = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    call: Any = _node if torch.compiler.is_compiling() else _attend
    out: Tensor = call(shared, key, value, module.layer_idx, options.get("scaling") or size**-0.5)
    return out.reshape(rows, 1, heads, value.shape[3]), None


def _attend(query: Tensor, key: Tensor, value: Tensor, layer: int, scale: float) -> Tensor:
    """[rows, shared heads, heads that share, size]; the layer has the new column afterwards."""
    step: Step = _running.step
    keys, values = step.layers[layer].update(key, value)
    mask = step.mask
    if mask is not None and mask.device != query.device:  # the model is spread over several GPUs
        mask = mask.to(query.device)
    parts = [
        scaled_dot_product_attention(
            query[begin:end],
            keys[begin:end, :, first:],
            values[begin:end, :, first:],
            attn_mask=None if mask is None else mask[begin:end, :, :, first:],
            scale=scale,
        )
        for begin, end, first in step.spans
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _shape(query: Tensor, key: Tensor, value: Tensor, layer: int, scale: float) -> Tensor:
    return query.new_empty(*query.shape[:3], value.shape[3])


_node = operators.define(
    "attend(Tensor query, Tensor key, Tensor value, int layer, float scale) -> Tensor", _attend, _shape
)
_way = Way("vlm_nb_decode", attend, _of_text)
