"""The demo model: its configuration and its first weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from tokenizer import NUMBERS
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

PATCH, CELL = 14, 28
#: The rotary base of the vision tower. vLLM has this number in its code, whatever a configuration says.
VISION_BASE = 10_000.0
#: A little over 25 cells, so that a square image lands on 5 x 5 and nothing on more.
MAX_PIXELS, MIN_PIXELS = 26 * CELL * CELL, 14 * CELL * CELL
SIZES: dict[str, dict[str, int]] = {
    "small": {"text": 128, "text_mlp": 384, "layers": 4, "heads": 4, "kv": 2, "vision": 96, "vision_mlp": 256,
              "depth": 4, "vision_heads": 3},
    "large": {"text": 192, "text_mlp": 512, "layers": 6, "heads": 6, "kv": 2, "vision": 128,
              "vision_mlp": 384, "depth": 5, "vision_heads": 4},
}  # fmt: skip


def build_config(tokenizer: PreTrainedTokenizerFast, size: str) -> Qwen2_5_VLConfig:
    """Configuration of a Qwen2.5-VL of this size; the rotary bases fit grids of a few cells."""
    shape = SIZES[size]
    ids: dict[str, Any] = {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    text = {
        "vocab_size": len(tokenizer), "hidden_size": shape["text"], "intermediate_size": shape["text_mlp"],
        "num_hidden_layers": shape["layers"], "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv"], "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10.0, "mrope_section": [2, 7, 7]}, **ids,
    }  # fmt: skip
    vision = {
        "depth": shape["depth"], "hidden_size": shape["vision"], "intermediate_size": shape["vision_mlp"],
        "num_heads": shape["vision_heads"], "out_hidden_size": shape["text"], "patch_size": PATCH,
        "fullatt_block_indexes": list(range(shape["depth"])),
        "rope_parameters": {"rope_type": "axial", "rope_theta": VISION_BASE},
    }  # fmt: skip
    marks: dict[str, Any] = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{mark}|>")
        for name, mark in (("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"),
                           ("vision_end", "vision_end"))
    }  # fmt: skip
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **marks, **ids)


def build_model(
    tokenizer: PreTrainedTokenizerFast, size: str, seed: int
) -> Qwen2_5_VLForConditionalGeneration:
    """A fresh model whose numbers and positions start from what a trial found useful."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer, size))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                weight.normal_(std=0.6 / math.sqrt(weight.shape[1]))
        _start_numbers(model.model.language_model.embed_tokens.weight)
        _start_positions(model)
    return model


def _start_numbers(embeddings: torch.Tensor) -> None:
    """Number tokens begin as Fourier features of their values: near numbers look alike."""
    width = embeddings.shape[1]
    periods = torch.logspace(math.log10(6.0), math.log10(600.0), width // 2)
    angles = 2 * math.pi * torch.arange(NUMBERS)[:, None] / periods
    embeddings[:NUMBERS] = 0.03 * torch.cat((angles.sin(), angles.cos()), dim=1)


def _start_positions(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Heads of the first text layer look at ``<|vision_start|>`` less or more by row or by column.

    The vision tower is rotary only, so a lone object carries no place there; this is where place comes from.
    """
    language = model.model.language_model
    attention = language.layers[0].self_attn
    mark = language.embed_tokens.weight[model.config.vision_start_token_id]
    mark.normal_(std=0.02)
    towards = mark / mark.norm() * math.sqrt(mark.numel())
    half = attention.head_dim // 2
    rows, columns = slice(2, 9), slice(9, 16)
    groups = attention.num_heads // attention.num_key_value_heads
    for head in range(attention.num_key_value_heads):
        key = torch.zeros(attention.head_dim)
        key[rows] = key[columns] = 1.0
        block = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
        attention.k_proj.weight[block] += key[:, None] * towards[None] / mark.numel()
        for member in range(groups):
            place = (head * groups + member) * attention.head_dim
            chosen = rows if member % 2 == 0 else columns
            sign = 4.0 if head % 2 == 0 else -4.0
            attention.q_proj.bias[place + half + chosen.start : place + half + chosen.stop] = sign


def save(model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write bf16 weights, configuration, tokenizer, template and image processor for `from_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().to("cpu", torch.bfloat16) for name, value in model.state_dict().items()}
    copy = Qwen2_5_VLForConditionalGeneration(model.config).to(torch.bfloat16)
    copy.load_state_dict(state)
    for part in (copy.config.text_config, copy.config.vision_config):
        part.dtype = torch.bfloat16  # weights that training began from were read in fp32
    copy.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=160, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    copy.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)


def image_processor() -> Qwen2VLImageProcessorPil:
    """The processor whose limits bring any image onto at most 25 cells."""
    return Qwen2VLImageProcessorPil(
        size={"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}, patch_size=PATCH, merge_size=2
    )
