"""The Hugging Face model's own forward, batched over images and packed over dialogues, for training.

Uses the modules of `Qwen2_5_VLForConditionalGeneration` and gives the same numbers (a test compares them).
Every shape is fixed, so one compiled graph serves the whole run.
"""

from __future__ import annotations

from typing import Any

import torch
from model import PATCH, image_processor
from packing import Batch
from tokenizer import NUMBERS
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2_5_VLForConditionalGeneration


class Trainee(nn.Module):
    """Loss of a packed batch; the weights are those of the wrapped model."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, sigma: float = 1.5) -> None:
        super().__init__()
        self.model = model
        processor = image_processor()
        mean, std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
        self.scale = nn.Buffer((1 / (255 * std)).repeat_interleave(PATCH**2), persistent=False)
        self.shift = nn.Buffer((-mean / std).repeat_interleave(PATCH**2), persistent=False)
        values = torch.arange(NUMBERS)
        soft = torch.exp(-((values[:, None] - values[None]) ** 2) / (2 * sigma**2))
        self.soft = nn.Buffer(soft / soft.sum(1, keepdim=True), persistent=False)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Mean weighted loss, and the mean losses of coordinates and of all other answer tokens."""
        hidden = self.hidden(batch).flatten(0, 1)[batch.targets]
        logits = functional.linear(hidden, self.model.model.language_model.embed_tokens.weight).float()
        likely = logits.log_softmax(-1)
        hard = -likely.gather(1, batch.labels[:, None])[:, 0]
        spread = -(self.soft[batch.labels.clamp(max=NUMBERS - 1)] * likely[:, :NUMBERS]).sum(-1)
        coordinate = (batch.labels < NUMBERS) & (batch.weights == 1)
        loss = torch.where(coordinate, spread, hard)
        total = (loss * batch.weights).sum() / batch.weights.sum()
        others = (batch.weights > 0.5) & ~coordinate
        return total, _mean(loss, coordinate), _mean(loss, others)

    def hidden(self, batch: Batch) -> Tensor:
        """Last hidden states [B, L, width]."""
        language: Any = self.model.model.language_model
        features = self._vision(batch).flatten(0, 1)
        words = language.embed_tokens(batch.ids)
        seen = features[batch.cells.clamp(min=0).flatten()].view_as(words).to(words.dtype)
        states = torch.where(batch.cells[..., None] >= 0, seen, words)
        cos, sin = _text_angles(language.rotary_emb, batch.positions)
        mask = _block_mask(batch.blocks)
        for layer in language.layers:
            states = states + _text_attention(
                layer.self_attn, _norm(layer.input_layernorm, states), cos, sin, mask
            )
            states = states + layer.mlp(_norm(layer.post_attention_layernorm, states))
        return _norm(language.norm, states)

    def _vision(self, batch: Batch) -> Tensor:
        visual: Any = self.model.model.visual
        pixels = batch.patches.float() * self.scale + self.shift
        # Both frames of a still image are equal, so the two temporal slices of the kernel may be added first.
        states = functional.linear(pixels, visual.patch_embed.proj.weight.sum(2).flatten(1))
        cos, sin, mask = _vision_angles(visual.rotary_pos_emb.inv_freq, batch.grids, states.shape[1])
        for block in visual.blocks:
            states = states + _vision_attention(block.attn, _norm(block.norm1, states), cos, sin, mask)
            states = states + block.mlp(_norm(block.norm2, states))
        merged = _norm(visual.merger.ln_q, states)
        cells: Tensor = visual.merger.mlp(merged.view(states.shape[0], -1, 4 * states.shape[2]))
        return cells


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


def _norm(module: Any, states: Tensor) -> Tensor:
    return functional.rms_norm(states.float(), (states.shape[-1],), module.weight, module.variance_epsilon)


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = states.chunk(2, dim=-1)
    return (states * cos + torch.cat((-second, first), dim=-1) * sin).to(states.dtype)


def _text_angles(rotary: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return cos and sin [B, 1, L, head], each band of frequencies turned by its own axis."""
    angles = positions[..., None].float() * rotary.inv_freq
    bands = [part[i % 3] for i, part in enumerate(angles.split(list(rotary.mrope_section), dim=-1))]
    angles = torch.cat(bands * 2, dim=-1)[:, None]
    return angles.cos(), angles.sin()


def _block_mask(blocks: Tensor) -> Tensor:
    """[B, 1, L, L]: what may be seen is earlier and in the opening or in the same block."""
    later = torch.arange(blocks.shape[1], device=blocks.device)
    causal = later[:, None] >= later[None]
    near = (blocks[:, :, None] == blocks[:, None]) | (blocks[:, None] == 0)
    return (causal & near)[:, None]


def _text_attention(attention: Any, states: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
    count, length, _ = states.shape
    query, key, value = (
        layer(states).view(count, length, -1, attention.head_dim).transpose(1, 2)
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    groups = attention.num_key_value_groups
    key, value = _rotate(key, cos, sin).repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    mixed = _attend(_rotate(query, cos, sin), key, value, mask)
    return attention.o_proj(mixed.transpose(1, 2).reshape(count, length, -1))


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Plain attention: compiled on a CPU it is faster than the flash kernel at these lengths."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return scores.masked_fill(~mask, -1e4).softmax(-1).to(value.dtype) @ value


def _vision_angles(frequencies: Tensor, grids: Tensor, patches: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return cos and sin [N, 1, P, head] by row and column of a patch, and the mask [N, 1, 1, P]."""
    number = torch.arange(patches, device=grids.device)[None]
    cell, inner, wide = number // 4, number % 4, grids[:, 1:] // 2
    row, column = 2 * (cell // wide) + inner // 2, 2 * (cell % wide) + inner % 2
    angles = torch.cat((row[..., None] * frequencies, column[..., None] * frequencies), dim=-1)
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    real = (number < grids.prod(1, keepdim=True))[:, None, None]
    return angles.cos(), angles.sin(), real


def _vision_attention(attention: Any, states: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
    count, length, width = states.shape
    parts = attention.qkv(states).view(count, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key = _rotate(parts[0], cos, sin), _rotate(parts[1], cos, sin)
    mixed = _attend(query, key, parts[2], mask)
    return attention.proj(mixed.transpose(1, 2).reshape(count, length, width))
