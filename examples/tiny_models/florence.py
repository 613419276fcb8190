"""The recipe of Florence-2: an encoder-decoder whose vision tower mixes convolutions and attention."""

from __future__ import annotations

from typing import Any

import transformers
from recipe import BINS, SQUARE, WIDTH, Recipe
from words import word_tokenizer

from vlm_nb.families import family_for

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<image>", *BINS)
PROMPTS = (
    "Describe in detail what is shown in the image.",
    "Locate the objects with category name in the image.",
    "Locate the phrases in the caption:",
)
"""What the processor makes of the family's task tokens."""


def florence2_tokenizer() -> Any:
    """The words and the location tokens."""
    return word_tokenizer(
        PROMPTS, (), SPECIALS, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip


def build_florence2(tokenizer: Any) -> tuple[Any, Any]:
    """A DaViT that brings 64 pixels to 8 x 8, then to 4 x 4 places, and a Bart. Their mean comes first."""
    images = transformers.CLIPImageProcessorPil(
        size={"height": 64, "width": 64}, crop_size={"height": 64, "width": 64}, do_center_crop=False,
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    images.image_seq_length = 17
    processor = transformers.Florence2Processor(images, tokenizer, num_additional_image_tokens=1)
    vision = {
        "depths": [1, 1], "embed_dim": [64, 96], "num_heads": [2, 3], "num_groups": [2, 3],
        "patch_size": [8, 3], "patch_stride": [8, 2], "patch_padding": [0, 1], "patch_prenorm": [False, True],
        "window_size": 4, "mlp_ratio": 2.0, "drop_path_rate": 0.0, "projection_dim": WIDTH,
        "max_position_embeddings": 4,
    }  # fmt: skip
    config = transformers.Florence2Config(
        text_config={"model_type": "bart", **_bart(tokenizer)}, vision_config=vision,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), tie_word_embeddings=True,
    )  # fmt: skip
    return config, processor


def _bart(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "dropout": 0.0,
        "encoder_ffn_dim": 2 * WIDTH, "decoder_ffn_dim": 2 * WIDTH, "max_position_embeddings": 256,
        "bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id, "decoder_start_token_id": tokenizer.eos_token_id,
        "forced_eos_token_id": tokenizer.eos_token_id, "tie_word_embeddings": True,
    }  # fmt: skip


FLORENCE2 = Recipe(family_for("florence2"), BINS, SQUARE, florence2_tokenizer, build_florence2, lead=1)
