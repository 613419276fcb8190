"""From the prompts of some rows to a block of cache and the scores of their first tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers

from .batching import Row, collate
from .leftpad import Block

HFGenerationConfig: Any = transformers.GenerationConfig


def prefill(
    model: Any, rows: Sequence[Row], device: torch.device, features: Any = None
) -> tuple[Block, torch.Tensor]:
    """Run the prompts (and answers so far) of rows of one kind through ``generate`` for one token.

    ``generate`` prepares masks, positions and images as the family wants them; the positions are taken from
    the model's own call, because what the model keeps of them is stale after the next prompt. ``features``
    stand in for pixels (``reuse.Features``). The scores are float, [rows, vocabulary].
    """
    inputs = collate(rows, model.generation_config.pad_token_id, device, model.dtype)
    if features is not None:
        inputs = features.replace(model, rows, inputs)
    return first_tokens(model, inputs)


def first_tokens(model: Any, inputs: dict[str, Any]) -> tuple[Block, torch.Tensor]:
    """The block and the scores after ``inputs``, as the model's processor names them."""
    mask = inputs["attention_mask"]
    seen: list[torch.Tensor] = []
    handle = model.register_forward_pre_hook(
        lambda module, args, call: seen.append(call["position_ids"]), with_kwargs=True
    )
    try:
        out = model.generate(
            **inputs,
            generation_config=HFGenerationConfig(
                max_new_tokens=1, do_sample=False, return_dict_in_generate=True, output_logits=True
            ),
        )
    finally:
        handle.remove()
    positions = seen[0][..., -1:] + 1
    return Block(out.past_key_values, mask.long(), positions), out.logits[0].float()
