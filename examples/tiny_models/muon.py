"""Muon in fp32: ``torch.optim.Muon`` turns to bf16, ten times as slow where a core cannot.

Momentum, then the nearest orthogonal matrix by five Newton-Schulz steps (the published coefficients), scaled
as ``torch.optim.Muon`` scales it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_A, _B, _C = 3.4445, -4.775, 2.0315


class Muon(torch.optim.Optimizer):
    """For matrices [rows, columns] inside a network; embeddings and vectors want another optimiser."""

    def __init__(self, matrices: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._move(matrix, group["lr"], group["momentum"])

    def _move(self, matrix: Tensor, rate: float, momentum: float) -> None:
        state = self.state[matrix]
        if not state:
            state["mean"] = torch.zeros_like(matrix)
        mean = state["mean"].lerp_(matrix.grad, 1 - momentum)
        towards = orthogonal(torch.lerp(matrix.grad, mean, momentum))
        rows, columns = matrix.shape
        matrix.mul_(1 - 0.01 * rate)  # decay
        matrix.add_(towards, alpha=-rate * max(1.0, rows / columns) ** 0.5)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """About the nearest matrix whose singular values are all one."""
    tall = matrix.shape[0] > matrix.shape[1]
    states = matrix.T if tall else matrix
    states = states / (states.norm() + 1e-7)
    for _ in range(steps):
        gram = states @ states.T
        states = _A * states + (_B * gram + _C * gram @ gram) @ states
    return states.T if tall else states
