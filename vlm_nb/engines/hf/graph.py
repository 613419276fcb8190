"""What is compiled of a model: the function of one decode step, and how torch makes one graph of it."""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .step import next_scores

Step = Callable[..., torch.Tensor]
_numbers = itertools.count()


def step_of(model: Any) -> Step:
    """What is compiled: the scores after tokens ([rows, 1]) at positions ([rows, 1] or [axes, rows, 1])."""

    def step(tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return next_scores(model, tokens, positions)

    return step


def own(step: Any) -> Step:
    """The function with code and name of its own.

    Torch keeps graphs, and counts them, by code object; which sizes were seen to vary it remembers by name,
    and would mistake the sizes of two models for one model's that vary.
    """
    code = step.__code__.replace(co_name=f"step_{next(_numbers)}")
    return types.FunctionType(code, step.__globals__, closure=step.__closure__)


def leave_open(tokens: torch.Tensor, positions: torch.Tensor) -> None:
    """Tell torch that the number of rows varies; it fails to compile what would fix it.

    For one row it makes a graph of its own, in which no size varies.
    """
    mark: Any = torch._dynamo.mark_dynamic
    if len(tokens) > 1:
        mark(tokens, 0)
        mark(positions, positions.ndim - 2)


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
