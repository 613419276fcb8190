"""The next token of every running row, from the scores of one step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .batching import Row


def choose(rows: Sequence[Row], scores: torch.Tensor) -> list[tuple[int, float]]:
    """Return (token, natural-log probability under the model's own scores) for each row.

    ``scores`` is float, [rows, vocabulary]. Each row's own sampler sees its own unpadded tokens.
    """
    chosen = scores
    for index, row in enumerate(rows):
        count = len(row.new_ids)
        if row.sampler.is_plain(count):
            continue
        chosen = scores.clone() if chosen is scores else chosen
        own = row.ids.to(scores.device)
        chosen[index] = row.sampler(own, scores[index : index + 1], count)[0]
    tokens = chosen.argmax(-1)
    logprobs = scores.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    # together: one wait for a GPU. Numbers of tokens below 2**24 are exact
    both = torch.stack([tokens.to(logprobs.dtype), logprobs]).tolist()
    return [(int(token), logprob) for token, logprob in zip(*both, strict=True)]
