"""Rows of tokens as tensors: question and answer in one sequence, or each in one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Inputs = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Prefix:
    """Tokens of a question with its image, and their positions [3, n] where the family has three."""

    ids: tuple[int, ...]
    positions: Tensor | None


Row = tuple[Prefix, tuple[int, ...]]


def in_one(rows: Sequence[Row], pad: int) -> tuple[Inputs, list[int]]:
    """Question and answer one after the other, padded on the right; where answers are predicted from.

    ``token_type_ids`` is 0 for the question and 1 for what follows.
    """
    length = max((len(prefix.ids) + len(answer) for prefix, answer in rows), default=0)
    ids = torch.full((len(rows), length), pad)
    mask, kinds = torch.zeros_like(ids), torch.ones_like(ids)
    positions = torch.zeros((3, *ids.shape), dtype=torch.long)
    targets: list[int] = []
    for n, (prefix, answer) in enumerate(rows):
        start, end = len(prefix.ids), len(prefix.ids) + len(answer)
        ids[n, :end] = torch.tensor((*prefix.ids, *answer))
        mask[n, :end], kinds[n, :start] = 1, 0
        if prefix.positions is not None:
            positions[:, n, :start] = prefix.positions
            after = int(prefix.positions.max()) + 1
            positions[:, n, start:end] = torch.arange(after, after + len(answer))
        targets += range(n * length + start - 1, n * length + end - 1)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
    if rows and rows[0][0].positions is not None:
        inputs["position_ids"] = positions
    return inputs, targets


def apart(rows: Sequence[Row], pad: int, start: int) -> tuple[Inputs, list[int]]:
    """Questions for an encoder, answers after the token ``start`` for a decoder; both padded on the right."""
    ids, mask = _right([prefix.ids for prefix, _ in rows], pad)
    answers, _ = _right([(start, *answer[:-1]) for _, answer in rows], pad)
    width = answers.shape[1]
    targets = [n * width + place for n, (_, answer) in enumerate(rows) for place in range(len(answer))]
    return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": answers}, targets


def _right(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    ids = torch.full((len(rows), max(map(len, rows), default=0)), pad)
    mask = torch.zeros_like(ids)
    for n, row in enumerate(rows):
        ids[n, : len(row)], mask[n, : len(row)] = torch.tensor(row), 1
    return ids, mask
