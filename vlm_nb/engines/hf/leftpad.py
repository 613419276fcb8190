"""The caches of all running rows side by side: every row ends in the last column, padded on the left.

All rows write the same column, so that the stock cache of transformers is enough. A row that joins is padded,
or pads the others; a row that leaves takes the columns with it that nobody else needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer

from . import gate
from .room import RoomyLayer
from .step import Span, Step, attending, cut, next_scores, query_size

ALIGNED = 8


@dataclass(slots=True)
class Block:
    """Rows under way. ``cache`` is a DynamicCache of ``width`` columns (a sliding layer keeps the last ones).

    ``mask`` is [rows, width], 1 in the columns that belong to the row, its last ones; ``positions`` are those
    of the next tokens, [rows, 1] or [axes, rows, 1] as the model counts. ``own`` are the spans in which rows
    attend, none where they do it as the model has it; None is not found yet.
    """

    cache: Any
    mask: torch.Tensor
    positions: torch.Tensor
    own: tuple[Span, ...] | None = None

    @property
    def width(self) -> int:
        """Columns of the block."""
        return self.mask.shape[1]

    def decode(self, model: Any, tokens: torch.Tensor) -> torch.Tensor:
        """Append each row's token ([rows, 1]); return the next scores, float, [rows, vocabulary]."""
        self.make_room()
        if self.spans(model):
            with self.stepping(model):
                return next_scores(model, tokens, self.positions)
        mask = self.widened()
        out = model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            return_dict=True,
        )
        self.advance(mask)
        scores: torch.Tensor = out.logits[:, -1].float()
        return scores

    @contextlib.contextmanager
    def stepping(self, model: Any) -> Iterator[None]:
        """For one call of ``next_scores``, which takes the block on by a column; there must be room."""
        mask, spans = self.widened(), self.spans(model)
        added = _added(mask, model.dtype) if spans else None  # none where no row is padded
        with attending(model, Step(self.cache.layers, added, spans or ((0, len(mask), 0),))):
            yield
        self.advance(mask)

    def widened(self) -> torch.Tensor:
        """The mask with the column that the next decode step writes."""
        return pad(self.mask, (0, 1), value=1)

    def advance(self, mask: torch.Tensor) -> None:
        """Count the column that a decode step has written; ``mask`` is the widened one."""
        self.mask, self.positions = mask, self.positions + 1

    def spans(self, model: Any) -> tuple[Span, ...]:
        """How the rows attend together; empty where the model's own way is left to it.

        That is where it does not use sdpa on all columns, and on a GPU without padding: its kernels that are
        fastest take no mask.
        """
        if self.own is None:
            starts = [self.width - columns for columns in self.mask.sum(1).tolist()]
            if not takes_added_masks(model, self.cache):
                self.own = ()
            elif self.mask.device.type == "cpu":
                self.own = cut(starts, self.width, query_size(model))
            else:
                self.own = ((0, len(starts), 0),) if any(starts) else ()
        return self.own

    def restore(self) -> bool:
        """After a decode that broke off, cut what some layers had appended; False if that cannot be done."""
        if any(layer.is_sliding for layer in self.cache.layers):
            return False
        for layer in self.cache.layers:
            if isinstance(layer, RoomyLayer):
                layer.cut(self.width)
            else:
                layer.keys, layer.values = layer.keys[:, :, : self.width], layer.values[:, :, : self.width]
        return True

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, and the columns that none of these uses."""
        self.own = None
        chosen = torch.tensor(rows, dtype=torch.long, device=self.mask.device)
        self.mask = self.mask[chosen]
        self.positions = self.positions.index_select(self.positions.ndim - 2, chosen)
        width = int(self.mask.sum(1).max()) if len(rows) else 0
        for layer in self.cache.layers:
            if isinstance(layer, RoomyLayer):
                layer.keep(rows, width)
            else:
                layer.keys, layer.values = layer.keys[chosen], layer.values[chosen]
                _resize(layer, width)
        self.mask = self.mask[:, self.mask.shape[1] - width :]

    def join(self, other: Block) -> None:
        """Put the rows of ``other`` behind these."""
        self.make_room()
        self.own = None
        width = max(self.width, other.width)
        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            if isinstance(mine, RoomyLayer):
                mine.join(theirs.keys, theirs.values)
            else:
                _resize(mine, width)
                _resize(theirs, width)
                mine.keys = torch.cat([mine.keys, theirs.keys])
                mine.values = torch.cat([mine.values, theirs.values])
        self.mask = torch.cat([pad(part.mask, (width - part.width, 0)) for part in (self, other)])
        self.positions = torch.cat([self.positions, other.positions], dim=self.positions.ndim - 2)

    def make_room(self) -> None:
        """Give the layers room, so that tokens and rows are added in place; sliding ones stay as they are."""
        layers = self.cache.layers
        for index, layer in enumerate(layers):
            if type(layer) is DynamicLayer:
                layers[index] = RoomyLayer(layer)

    def compact(self) -> None:
        """Close the gaps in rows whose columns are not side by side."""
        lengths = self.mask.sum(1)
        width = int(lengths.max())
        self.own = None
        order = self.mask.argsort(dim=1, stable=True)[:, self.width - width :]  # a row's columns come last
        for layer in self.cache.layers:
            layer.keys, layer.values = (_columns(part, order) for part in (layer.keys, layer.values))
        self.mask = self.mask.gather(1, order)


def _added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``mask`` ([rows, columns]) as sdpa adds it to its scores, [rows, 1, 1, columns].

    The model would make the same of it at every step, and sdpa again in every layer. It lies in whole groups
    of columns: a GPU's kernel would copy it there.
    """
    rows, columns = mask.shape
    room = torch.zeros(rows, columns + -columns % ALIGNED, dtype=dtype, device=mask.device)
    return room[:, :columns].masked_fill_(mask == 0, -torch.inf)[:, None, None]


def takes_added_masks(model: Any, cache: Any) -> bool:
    """Whether all layers attend through sdpa to all columns, in a way that is known here: ``step`` serves."""
    config = model.config.get_text_config(decoder=True)
    through_sdpa = config.model_type in gate.STEPPED and config._attn_implementation == "sdpa"
    return through_sdpa and all(type(layer) is RoomyLayer for layer in cache.layers)


def _resize(layer: Any, width: int) -> None:
    """Pad or cut a layer on the left, so that its block has ``width`` columns."""
    columns = width
    if layer.is_sliding:
        columns = min(width, layer.sliding_window - 1)
        layer.cumulative_length = width
    # a negative pad cuts; copied, so that what is cut is freed
    more = (0, 0, columns - layer.keys.shape[2], 0)
    layer.keys, layer.values = pad(layer.keys, more), pad(layer.values, more)


def _columns(part: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    rows, heads, _, size = part.shape
    return part.gather(2, order[:, None, :, None].expand(rows, heads, order.shape[1], size))
