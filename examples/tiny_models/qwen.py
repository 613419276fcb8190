"""The recipes of Qwen2-VL and Qwen3-VL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers
from recipe import CHATML_PIECES, PER_MILLE, WIDTH, Recipe, chatml, decoder
from words import prompt_pieces, word_tokenizer

from vlm_nb.engines.hf.processor import images_only
from vlm_nb.families import Family, family_for

QWEN = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"),
    *("<|video_pad|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
)
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
JSON_PIECES = (
    '```json\n[\n\t{"bbox_2d": [', '], "label": "', '"},\n\t{"bbox_2d": [', '"}\n]\n```',
    "```json\n[]\n```", ", ",
)  # fmt: skip
QWEN_PATCH = 8
CELLS = ((48, 48), (64, 48), (48, 64), (64, 32), (32, 64))
"""Sizes of drawn scenes for families that resize to whole cells."""


def qwen_tokenizer(family: Family, pieces: tuple[str, ...]) -> Any:
    """Return Qwen's special tokens and ChatML around the words."""
    pieces = (*prompt_pieces(family, QWEN), *CHATML_PIECES, *pieces)
    tokenizer = word_tokenizer(pieces, PER_MILLE, QWEN, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    tokenizer.chat_template = chatml(QWEN_IMAGE)
    return tokenizer


def qwen_config(kind: type, tokenizer: Any, rope: dict[str, Any], vision: dict[str, Any]) -> Any:
    """The configuration of one generation of Qwen, with the ids that it names."""
    ids = tokenizer.convert_tokens_to_ids
    return kind(
        text_config=decoder(tokenizer, rope_parameters=rope), vision_config=vision, tie_word_embeddings=True,
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
    )  # fmt: skip


def qwen_processor(kind: type, tokenizer: Any) -> Any:
    """Patches of 8 pixels, cells of 16, at most 12 cells an image."""
    cell = 2 * QWEN_PATCH
    images = transformers.Qwen2VLImageProcessorPil(
        size={"shortest_edge": 8 * cell**2, "longest_edge": 12 * cell**2},
        patch_size=QWEN_PATCH, image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    return images_only(kind)(images, tokenizer, chat_template=tokenizer.chat_template)


def qwen_recipe(name: str, pieces: tuple[str, ...], build: Callable[[Any], tuple[Any, Any]]) -> Recipe:
    """Whole cells, coordinates per mille, Qwen's tokens and the ``pieces`` of the family's boxes."""
    family = family_for(name)
    return Recipe(family, PER_MILLE, CELLS, lambda: qwen_tokenizer(family, pieces), build)


def build_qwen3_vl(tokenizer: Any) -> tuple[Any, Any]:
    """An interleaved rotary text model; the tower has learnt places and one more layer's features."""
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 4, 4], "mrope_interleaved": True}
    vision = {
        "depth": 3, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2,
        "out_hidden_size": WIDTH, "patch_size": QWEN_PATCH, "num_position_embeddings": 64,
        "deepstack_visual_indexes": [1],
    }  # fmt: skip
    config = qwen_config(transformers.Qwen3VLConfig, tokenizer, rope, vision)
    return config, qwen_processor(transformers.Qwen3VLProcessor, tokenizer)


QWEN3_VL = qwen_recipe("qwen3_vl", JSON_PIECES, build_qwen3_vl)

# Qwen2-VL -----------------------------------------------------------------------------------------------

QWEN2_PIECES = ("(", ",", "),(", ")")


def build_qwen2_vl(tokenizer: Any) -> tuple[Any, Any]:
    """Qwen3-VL's cells; towers whose places are rotary only, so the rotary bases fit grids of a few cells."""
    rope = {"rope_type": "default", "rope_theta": 10.0, "mrope_section": [2, 5, 5]}
    vision = {
        "depth": 4, "embed_dim": 64, "mlp_ratio": 2, "num_heads": 2, "hidden_size": WIDTH,
        "patch_size": QWEN_PATCH,
    }  # fmt: skip
    config = qwen_config(transformers.Qwen2VLConfig, tokenizer, rope, vision)
    return config, qwen_processor(transformers.Qwen2VLProcessor, tokenizer)


QWEN2_VL = qwen_recipe("qwen2_vl", QWEN2_PIECES, build_qwen2_vl)
