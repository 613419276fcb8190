"""Vision towers that attend within windows and images (Qwen-VL's, GLM-4V's): all of one length in one call.

Without FlashAttention such a tower calls sdpa for every window by itself, in every layer, after reading the
lengths from the device: 2,804 calls for one image of 1024² pixels with Qwen2.5-VL. Asked for an attention
whose name has "flash" in it, it hands all windows over together, with the places where they end. That is for
GPUs, which wait for the calls; a CPU has more to do with bringing windows of one length side by side.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .ways import Way

DEVICES = frozenset({"cuda"})
Group = tuple[int, Tensor | None]
"""A length, and the places of all windows of it, [windows × length]; None if those are all places."""

_seen = threading.local()  # groups by the tensor of ends, for one pass through a tower


@contextlib.contextmanager
def together(model: Any) -> Iterator[None]:
    """Let the vision tower of ``model`` attend by ``attend`` where it would use sdpa window by window."""
    if model.device.type not in DEVICES:
        yield
        return
    try:
        _seen.groups = {}
        with _way.taken(model, instead_of="sdpa"):
            yield
    finally:
        _seen.groups = {}


def _takes_ends(layer: Any) -> bool:
    """Whether the layer is told where windows end."""
    return "cu_seqlens" in inspect.signature(type(layer).forward).parameters


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """Attention within windows, as transformers calls FlashAttention's.

    ``query``, ``key`` and ``value`` are [1, heads, places, size], ``cu_seq_lens_q`` the places where windows
    begin and the last one ends, [windows + 1]; the result is [1, places, heads, size].
    """
    parts = [part[0].transpose(0, 1) for part in (query, key, value)]  # [places, heads, size]
    found = torch.empty_like(parts[0], memory_format=torch.contiguous_format)
    for length, places in _groups(options["cu_seq_lens_q"]):
        q, k, v = (_cut(part, length, places) for part in parts)
        out = (
            scaled_dot_product_attention(q, k, v, scale=options.get("scaling")).transpose(1, 2).flatten(0, 1)
        )
        if places is None:
            return out[None], None
        found[places] = out
    return found[None], None


def _cut(part: Tensor, length: int, places: Tensor | None) -> Tensor:
    """[places, heads, size] → [windows, heads, length, size]."""
    chosen = part if places is None else part[places]
    return chosen.reshape(-1, length, *chosen.shape[1:]).transpose(1, 2)


def _groups(ends: Tensor) -> list[Group]:
    """The windows by length; found once for all layers that have the same windows."""
    known = _seen.groups
    if id(ends) not in known:  # kept with its groups, so that no other tensor gets its id meanwhile
        known[id(ends)] = (ends, _by_length(ends.tolist(), ends.device))
    found: list[Group] = known[id(ends)][1]
    return found


def _by_length(ends: list[int], device: torch.device) -> list[Group]:
    starts: dict[int, list[int]] = {}
    for begin, end in itertools.pairwise(ends):
        if end > begin:
            starts.setdefault(end - begin, []).append(begin)
    if len(starts) == 1:
        return [(next(iter(starts)), None)]
    places = {
        length: torch.tensor(begins, device=device)[:, None] + torch.arange(length, device=device)
        for length, begins in starts.items()
    }
    return [(length, found.flatten()) for length, found in places.items()]


_way = Way("vlm_nb_windows_as_flash", attend, _takes_ends)
