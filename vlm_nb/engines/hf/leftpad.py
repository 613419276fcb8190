"""The caches of all running rows side by side: every row ends in the last column, padded on the left.

All rows write the same column, so that the stock cache of transformers is enough. A row that joins is padded,
or pads the others; a row that leaves takes the columns with it that nobody else needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer

from .room import RoomyLayer


@dataclass(slots=True)
class Block:
    """Rows under way. ``cache`` is a DynamicCache of ``width`` columns (a sliding layer keeps the last ones).

    ``mask`` is [rows, width], 1 in the columns that belong to the row, its last ones; ``positions`` are those
    of the next tokens, [rows, 1] or [axes, rows, 1] as the model counts. ``padded`` says whether some row has
    less than ``width`` columns; None is not counted yet.
    """

    cache: Any
    mask: torch.Tensor
    positions: torch.Tensor
    padded: bool | None = None

    @property
    def width(self) -> int:
        """Columns of the block."""
        return self.mask.shape[1]

    def decode(self, model: Any, tokens: torch.Tensor) -> torch.Tensor:
        """Append each row's token ([rows, 1]); return the next scores, float, [rows, vocabulary]."""
        self.make_room()
        mask = self.widened()
        out = model(
            input_ids=tokens,
            attention_mask=self._visible(model, mask),
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            return_dict=True,
        )
        self.advance(mask)
        scores: torch.Tensor = out.logits[:, -1].float()
        return scores

    def widened(self) -> torch.Tensor:
        """The mask with the column that the next decode step writes."""
        return pad(self.mask, (0, 1), value=1)

    def advance(self, mask: torch.Tensor) -> None:
        """Count the column that a decode step has written; ``mask`` is the ``widened`` one."""
        self.mask, self.positions = mask, self.positions + 1

    def _visible(self, model: Any, mask: torch.Tensor) -> torch.Tensor:
        """``mask`` as sdpa adds it to its scores, [rows, 1, 1, columns]; as it is for any other attention.

        The model makes the same of it at every step, and sdpa again in every layer. Without padding it needs
        none at all, and sees that.
        """
        if self.padded is None:
            self.padded = bool((mask == 0).any())
        if not self.padded or not takes_added_masks(model, self.cache):
            return mask
        added = torch.zeros(mask.shape, dtype=model.dtype, device=mask.device)
        return added.masked_fill_(mask == 0, -torch.inf)[:, None, None]

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
        self.padded = None
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
        self.padded = None
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
        self.padded = None
        order = self.mask.argsort(dim=1, stable=True)[:, self.width - width :]  # a row's columns come last
        for layer in self.cache.layers:
            layer.keys, layer.values = (_columns(part, order) for part in (layer.keys, layer.values))
        self.mask = self.mask.gather(1, order)


def takes_added_masks(model: Any, cache: Any) -> bool:
    """Whether all layers attend through sdpa to all columns, so that one mask added to the scores serves."""
    config = getattr(model, "config", None)
    known = getattr(config, "_attn_implementation", None) == "sdpa"
    return known and all(type(layer) is RoomyLayer for layer in cache.layers)


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
