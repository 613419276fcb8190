"""Choosing the next token of one row, whatever else is in the batch.

Each row has its own processors and its own random generator, so that an answer depends on its request only:
not on its neighbours, nor on its place among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ...request import GenerationConfig
from .constraint import Constraint


class Sampler:
    """Turns one row's scores into scores whose largest is the choice.

    ``defaults`` are the checkpoint's: its temperature, top_p, top_k and repetition_penalty hold where
    sampling was asked for and the request does not say. Greedy rows take a repetition penalty from the
    request only. A ``constraint`` masks what its grammar does not allow, before anything else.
    """

    def __init__(
        self,
        settings: GenerationConfig,
        defaults: Mapping[str, Any],
        eos: frozenset[int],
        device: torch.device,
        constraint: Constraint | None = None,
    ) -> None:
        self._constraint = constraint
        self._eos = sorted(eos)
        self._min_new = settings.min_new_tokens if eos else 0
        inherited = defaults if settings.sampling else {}
        self._penalty = _penalty(settings.repetition_penalty or inherited.get("repetition_penalty"))
        self._warpers: list[Any] = _warpers(settings, inherited) if settings.sampling else []
        self._generator: torch.Generator | None = None
        if settings.sampling:
            seed = settings.seed
            # Without a seed, torch's own generator decides, so that torch.manual_seed is honoured.
            drawn = int(torch.randint(2**62, (1,))) if seed is None else seed
            self._generator = torch.Generator(device).manual_seed(drawn)

    def is_plain(self, new_tokens: int) -> bool:
        """Whether the scores stay as they are at this step."""
        free = self._constraint is None and self._penalty is None
        return free and self._generator is None and new_tokens >= self._min_new

    def accept(self, token: int) -> None:
        """Take note of the token that was chosen."""
        if self._constraint is not None:
            self._constraint.accept(token)

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor, new_tokens: int) -> torch.Tensor:
        """``ids``: the row's own tokens, unpadded, [1, length]; ``scores``: float, [1, vocabulary]."""
        if self._constraint is not None:
            scores = self._constraint.mask(scores)
        elif new_tokens < self._min_new:
            scores = scores.clone()
            scores[:, self._eos] = -torch.inf
        if self._penalty is not None:
            scores = self._penalty(ids, scores)
        if self._generator is None:
            return scores
        for warper in self._warpers:
            scores = warper(ids, scores)
        drawn = torch.multinomial(scores.softmax(-1), 1, generator=self._generator)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def _penalty(value: float | None) -> Any:
    return RepetitionPenaltyLogitsProcessor(float(value)) if value is not None and value != 1 else None


def _warpers(settings: GenerationConfig, inherited: Mapping[str, Any]) -> list[Any]:
    def value(name: str) -> Any:
        own = getattr(settings, name)
        return inherited.get(name) if own is None else own

    temperature, top_k, top_p = value("temperature"), value("top_k"), value("top_p")
    chosen: list[Any] = []
    if temperature and temperature != 1:
        chosen.append(TemperatureLogitsWarper(float(temperature)))
    if top_k:
        chosen.append(TopKLogitsWarper(int(top_k)))
    if top_p is not None and top_p < 1:
        chosen.append(TopPLogitsWarper(float(top_p)))
    return chosen
