"""Random checkpoints of a chosen size, for the engine's tests; ``tiny_models`` has one of each model type.

Heads are untied and drawn anew: with tied random embeddings a model repeats one token, and tests of tokens
would pass whatever the engine does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_models
import torch
from transformers import PreTrainedTokenizerFast

from examples.tiny_models.recipe import chatml

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<image>",
)
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def byte_tokenizer(image: str = QWEN_IMAGE, **options: Any) -> PreTrainedTokenizerFast:
    """One token a byte, so that every emoji takes several; chats as the Qwen models have them."""
    names = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    tokenizer = tiny_models.byte_tokenizer(SPECIAL, **names, **options)
    tokenizer.chat_template = chatml(image)
    return tokenizer


def make_qwen(
    folder: Path,
    *,
    hidden: int = 32,
    layers: int = 2,
    tie: bool = False,
    seed: int = 0,
    context: int = 4096,
    shards: str = "5GB",
) -> Path:
    """Save a random Qwen2.5-VL with its tokenizer and processor files."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = byte_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": context,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": mrope(hidden // 4)},
        "bos_token_id": ids("<|endoftext|>"),
        "eos_token_id": ids("<|im_end|>"),
        "pad_token_id": ids("<|endoftext|>"),
    }
    vision = {
        "depth": 2,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_heads": 2,
        "out_hidden_size": hidden,
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=tie,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    return save(model, tokenizer, folder, qwen_image_processor(), tie=tie, shards=shards)


def mrope(head_size: int) -> list[int]:
    """Sections for a head of ``head_size``: they add up to half of it."""
    half = head_size // 2
    third = half // 3
    return [half - 2 * third, third, third]


def qwen_image_processor() -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=28 * 28 * 64)


def make_llava(folder: Path, *, hidden: int = 32, seed: int = 0) -> Path:
    """Save a random LLaVA (CLIP tower, Llama text model) with a whole LlavaProcessor."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = byte_tokenizer("<image>")
    ids = tokenizer.convert_tokens_to_ids
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=ids("<|endoftext|>"),
        eos_token_id=ids("<|im_end|>"),
        pad_token_id=ids("<|endoftext|>"),
    )
    vision = CLIPVisionConfig(
        hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2, num_attention_heads=2,
        image_size=56, patch_size=14,
    )  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=ids("<image>"))
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    images = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    save(model, tokenizer, folder, images)
    LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", image_token="<image>",
        num_additional_image_tokens=1, chat_template=tokenizer.chat_template,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save(
    model: Any, tokenizer: Any, folder: Path, images: Any, *, tie: bool = False, shards: str = "5GB"
) -> Path:
    if not tie:
        torch.nn.init.normal_(model.lm_head.weight, std=1.0)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder, max_shard_size=shards)
    tokenizer.save_pretrained(folder)
    images.save_pretrained(folder)
    return folder
