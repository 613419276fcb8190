"""Running one batch of rows through ``model.generate``, token by token for the callers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from .batching import Row, collate

HFGenerationConfig: Any = transformers.GenerationConfig

SAMPLING_KEYS = (
    *("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("max_length", "max_new_tokens", "min_length", "min_new_tokens", "repetition_penalty", "max_time"),
    "stop_strings",
)
SHOWN_KEYS = (
    "do_sample",
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "num_beams",
    "max_new_tokens",
)


def take_over(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Return the checkpoint's generation settings; the model keeps none that would change a greedy answer.

    The rows apply them themselves where they are asked for. End and padding tokens stay.
    """
    config = model.generation_config
    defaults = {key: getattr(config, key, None) for key in SHOWN_KEYS}
    config.do_sample, config.num_beams = False, 1
    for key in SAMPLING_KEYS:
        if hasattr(config, key):
            setattr(config, key, None)
    if config.eos_token_id is None:
        config.eos_token_id = tokenizer.eos_token_id
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    if config.pad_token_id is None:
        ends = sorted(end_tokens(model))
        config.pad_token_id = ends[0] if ends else 0
    return {key: value for key, value in defaults.items() if value is not None}


def end_tokens(model: Any) -> frozenset[int]:
    """The ids that end an answer."""
    found = model.generation_config.eos_token_id
    if found is None:
        return frozenset()
    return frozenset([found] if isinstance(found, int) else found)


def start_token(model: Any) -> int | None:
    """The id that answers of an encoder-decoder follow; None where they follow the prompt."""
    if not getattr(model.config, "is_encoder_decoder", False):
        return None
    settings = model.generation_config
    found: int | None = settings.decoder_start_token_id
    if found is None:
        found = settings.bos_token_id
    return found


def run(model: Any, rows: Sequence[Row], device: torch.device, between: Callable[[], None]) -> None:
    """Answer ``rows`` (of one kind) and finish their tickets. ``between`` is called after every token."""
    config = model.generation_config
    inputs = collate(rows, config.pad_token_id, device, model.dtype)
    beams = rows[0].ticket.request.generation.num_beams
    if beams > 1:
        _run_beams(model, rows[0], inputs, beams, between)
        return
    chooser = _Chooser(rows)
    model.generate(
        **inputs,
        generation_config=HFGenerationConfig(
            max_new_tokens=max(row.limit - len(row.new_ids) for row in rows), do_sample=False
        ),
        logits_processor=LogitsProcessorList([chooser]),
        stopping_criteria=StoppingCriteriaList([_Deliver(rows, chooser, between)]),
    )


class _Chooser(LogitsProcessor):
    """Lets each row's sampler choose, and keeps the model's own scores for their probabilities."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self.scores: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.scores = scores
        chosen = scores
        for index, row in enumerate(self._rows):
            count = len(row.new_ids)
            if row.ticket.done or row.sampler.is_plain(count):
                continue
            chosen = scores.clone() if chosen is scores else chosen
            own = input_ids[index : index + 1, -row.length :]
            chosen[index] = row.sampler(own, scores[index : index + 1], count)[0]
        return chosen

    def logprobs(self, tokens: torch.Tensor) -> Sequence[float | None]:
        """Natural-log probability of each row's token under the model's own scores."""
        if self.scores is None:
            return [None] * len(tokens)
        of_token = self.scores.gather(1, tokens[:, None].to(self.scores.device))[:, 0]
        result: list[float] = (of_token - self.scores.logsumexp(-1)).tolist()
        self.scores = None
        return result


class _Deliver(StoppingCriteria):
    """Hands every new token to its row; tells ``generate`` which rows are complete or cancelled."""

    def __init__(self, rows: Sequence[Row], chooser: _Chooser, between: Callable[[], None]) -> None:
        self._rows = rows
        self._chooser = chooser
        self._between = between

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self._between()
        last = input_ids[:, -1]
        for row, token, logprob in zip(self._rows, last.tolist(), self._chooser.logprobs(last), strict=True):
            if not row.ticket.done:
                row.take(token, logprob)
        return torch.tensor([row.ticket.done for row in self._rows], device=input_ids.device)


class _Watch(StoppingCriteria):
    """Stops a beam search that was cancelled."""

    def __init__(self, row: Row, between: Callable[[], None]) -> None:
        self._row = row
        self._between = between

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self._between()
        stop = self._row.ticket.cancelled
        return torch.full((input_ids.shape[0],), stop, dtype=torch.bool, device=input_ids.device)


def _run_beams(model: Any, row: Row, inputs: dict[str, Any], beams: int, between: Callable[[], None]) -> None:
    settings = row.ticket.request.generation
    config = HFGenerationConfig(
        max_new_tokens=row.limit,
        num_beams=beams,
        do_sample=False,
        min_new_tokens=settings.min_new_tokens or None,
        repetition_penalty=settings.repetition_penalty,
    )
    out = model.generate(
        **inputs, generation_config=config, stopping_criteria=StoppingCriteriaList([_Watch(row, between)])
    )
    start = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    for token in out[0, start:].tolist():
        if row.ticket.done or row.take(token, None):
            return
    if not row.ticket.done:
        row.complete("stop")
