"""From the prompts of some rows to a block of cache and the scores of their first tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers

from . import windows
from .batching import Row, collate
from .leftpad import Block
from .reuse import Reuse

HFGenerationConfig: Any = transformers.GenerationConfig


def prefill(
    model: Any, rows: Sequence[Row], device: torch.device, reuse: Reuse | None = None
) -> tuple[Block, torch.Tensor]:
    """Run the prompts (and answers so far) of rows of one kind up to the scores of their next tokens.

    What ``reuse`` knows is not computed again. The scores are float, [rows, vocabulary].
    """
    with windows.together(model):
        return _prefill(model, rows, device, reuse)


def _prefill(
    model: Any, rows: Sequence[Row], device: torch.device, reuse: Reuse | None
) -> tuple[Block, torch.Tensor]:
    if reuse is not None and reuse.serves(rows):
        return reuse.prefill(model, rows, device)
    pad, dtype = model.generation_config.pad_token_id, model.dtype
    features = None if reuse is None else reuse.features
    if features is None or not features.stand_in(rows):
        return first_tokens(model, collate(rows, pad, device, dtype))
    images = [(row, place) for row in rows for place in range(len(row.encoded.image_keys))]
    inputs: dict[str, Any] = collate(rows, pad, device, dtype, without=["pixel_values"])
    return first_tokens(model, inputs | features.of(model, images, device, dtype))


def first_tokens(model: Any, inputs: dict[str, Any]) -> tuple[Block, torch.Tensor]:
    """The block and the scores after ``inputs``, as the model's processor names them.

    ``generate`` prepares masks, positions and images as the family wants them; the positions are taken from
    the model's own call, because what the model keeps of them is stale after the next prompt.
    """
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
