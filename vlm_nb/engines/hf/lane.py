"""A row alone on a GPU: its decode step is recorded as CUDA graphs and played back.

A token of one row is over a thousand small calls, for which the GPU waits; a recording is one. It holds
addresses and sizes: the row moves into rooms that stay where they are, its new column is written at an index
that a tensor has, and all columns of a recording are attended to, under a mask. There is a recording for each
of a few lengths. Several rows are not recorded: they come and go every few steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .leftpad import Block
from .step import Step, attending

DEVICES = frozenset({"cuda"})
LENGTHS = (256, 512, 768, 1024, 1536, 2048, 3072, 4096)
"""Columns, all of which a step reads: so it is at most twice, and from 1024 on at most one and a half times
what the row needs."""
SHARE = 0.05
"""The part of the free memory that the rooms may take."""

Play = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a recording reads: ``tokens`` [1, 1], ``positions`` as the model counts, ``column`` [1].

    ``mask`` [1, 1, 1, columns] is added to scores.
    """

    tokens: Tensor
    positions: Tensor
    column: Tensor
    mask: Tensor


class Lane:
    """Rooms for one row's keys and values, and the recordings that work in them."""

    def __init__(self, model: Any, block: Block, step: Callable[..., Tensor], free: int | None) -> None:
        """``block`` is a row like those to come; ``step`` makes scores of tokens and positions.

        ``free`` are the bytes that there are, None for any number. Raises ValueError where they are too few,
        or where the model is spread over several devices.
        """
        layers, device = block.cache.layers, block.mask.device
        self.lengths = _fitting(layers, free)
        columns = self.lengths[-1]
        self._rooms = [
            [part.new_zeros(1, part.shape[1], columns, part.shape[3]) for part in (layer.keys, layer.values)]
            for layer in layers
        ]
        self._inputs = Inputs(
            tokens=torch.zeros(1, 1, dtype=torch.long, device=device),
            positions=torch.zeros_like(block.positions, memory_format=torch.contiguous_format),
            column=torch.zeros(1, dtype=torch.long, device=device),
            mask=torch.full((1, 1, 1, columns), -torch.inf, dtype=model.dtype, device=device),
        )
        self._width = 0  # columns of the row that the mask is for
        self._plays = record({length: self._step(model, step, length) for length in self.lengths})

    def _step(self, model: Any, step: Callable[..., Tensor], length: int) -> Play:
        """A step that attends to the first ``length`` columns of the rooms."""
        inputs = self._inputs
        layers = [_Fixed(rooms, length, inputs.column) for rooms in self._rooms]

        def one() -> Tensor:
            with attending(model, Step(layers, inputs.mask[..., :length], ((0, 1, 0),))):
                return step(inputs.tokens, inputs.positions)

        return one

    def takes(self, block: Block) -> bool:
        """Whether the next step of ``block`` can be played."""
        return len(block.mask) == 1 and block.width < self.lengths[-1]

    def decode(self, block: Block, tokens: Tensor, length: int | None = None) -> Tensor:
        """As ``Block.decode``, by the recording of ``length`` columns, or the shortest that will do."""
        width = block.width
        if not self._holds(block):
            self._settle(block)
        self._inputs.tokens.copy_(tokens)
        self._inputs.positions.copy_(block.positions)
        self._inputs.column.fill_(width)
        self._inputs.mask[..., width] = 0
        scores = self._plays[length or next(n for n in self.lengths if n > width)]()
        for layer in block.cache.layers:
            layer.count()
        block.advance(block.widened())
        self._width = width + 1
        return scores.clone()

    def _holds(self, block: Block) -> bool:
        """Whether the row is here, as the last step has left it."""
        layers = zip(block.cache.layers, self._rooms, strict=True)
        return self._width == block.width and all(layer.lives_in(rooms) for layer, rooms in layers)

    def _settle(self, block: Block) -> None:
        """Move the row in."""
        block.make_room()
        for layer, rooms in zip(block.cache.layers, self._rooms, strict=True):
            layer.settle(rooms)
        self._inputs.mask.fill_(-torch.inf)
        self._inputs.mask[..., : block.width] = 0


class _Fixed:
    """A layer's rooms as a recording sees them: always all columns, the new one at an index in memory."""

    def __init__(self, rooms: Sequence[Tensor], length: int, column: Tensor) -> None:
        self._parts = [room[:, :, :length] for room in rooms]
        self._column = column

    def update(self, *states: Tensor) -> list[Tensor]:
        """Put the new column in its place; return all keys and values."""
        for part, new in zip(self._parts, states, strict=True):
            part.index_copy_(2, self._column, new)
        return self._parts


def _fitting(layers: Sequence[Any], free: int | None) -> tuple[int, ...]:
    """The lengths for which rooms fit into their share of ``free`` bytes."""
    if len({layer.keys.device for layer in layers}) > 1:
        raise ValueError("the model is spread over several devices")
    column = sum(part[:, :, 0].nbytes for layer in layers for part in (layer.keys, layer.values))
    found = tuple(length for length in LENGTHS if free is None or length * column <= SHARE * free)
    if not found:
        raise ValueError(f"the rooms of one row would take more than {SHARE:.0%} of the free memory")
    return found


def record(steps: Mapping[int, Play]) -> dict[int, Play]:
    """Record each of ``steps``; the tensor that a recording returns is overwritten by the next of any."""
    pool: Any = torch.cuda.graph_pool_handle()
    return {length: _recorded(step, pool) for length, step in steps.items()}


def _recorded(step: Play, pool: Any) -> Play:
    step()  # what is made once is made now
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):  # others copy meanwhile
        scores = step()

    def play() -> Tensor:
        graph.replay()
        return scores

    return play
