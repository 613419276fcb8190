"""One recipe a family: its real classes at a tiny size, its processor and its chat template."""

from __future__ import annotations

from typing import Any

import transformers
from florence import FLORENCE2
from qwen import QWEN2_VL, QWEN3_VL
from recipe import (
    CHATML_PIECES,
    FRACTIONS,
    LOCATIONS,
    PER_MILLE,
    SQUARE,
    WIDTH,
    Recipe,
    chatml,
    decoder,
    template,
    tower,
)
from words import prompt_pieces, word_tokenizer

from vlm_nb.engines.hf.processor import images_only
from vlm_nb.families import family_for

SIGLIP = {"model_type": "siglip_vision_model", "vision_use_head": False}

# LLaVA --------------------------------------------------------------------------------------------------

LLAVA = ("<s>", "</s>", "<pad>", "<image>")


def llava_tokenizer() -> Any:
    """LLaVA 1.5's turns around the words."""
    pieces = (*prompt_pieces(family_for("llava"), LLAVA), "USER: ", " ASSISTANT:", "ASSISTANT:")
    tokenizer = word_tokenizer(
        (*pieces, ": [", ", ", "]\n"), FRACTIONS, LLAVA,
        bos_token="<s>", eos_token="</s>", pad_token="<pad>",
    )  # fmt: skip
    tokenizer.chat_template = template("ROLE: ", "<image>\\n", " ", "ASSISTANT:", "message['role'] | upper")
    return tokenizer


def build_llava(tokenizer: Any) -> tuple[Any, Any]:
    """A SigLIP tower (as in the interleave checkpoints) and a Llama."""
    images = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56},
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    processor = transformers.LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="full",
        num_additional_image_tokens=0, chat_template=tokenizer.chat_template,
    )  # fmt: skip
    config = transformers.LlavaConfig(
        text_config={"model_type": "llama", **decoder(tokenizer)},
        vision_config=tower(**SIGLIP),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), tie_word_embeddings=True,
        vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip
    return config, processor


LLAVA_15 = Recipe(family_for("llava"), FRACTIONS, SQUARE, llava_tokenizer, build_llava)

# PaliGemma ----------------------------------------------------------------------------------------------


def paligemma_tokenizer() -> Any:
    """The words; the processor adds ``<image>``, ``<loc0000>`` … and ``<seg000>`` … itself."""
    pieces = ("caption en", "detect ", "\n", " ; ")
    return word_tokenizer(
        pieces, (), ("<pad>", "<eos>", "<bos>"), bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )


def build_paligemma(tokenizer: Any) -> tuple[Any, Any]:
    """A SigLIP tower and a Gemma."""
    images = transformers.SiglipImageProcessorPil(size={"height": 56, "width": 56})
    images.image_seq_length = 16
    processor = transformers.PaliGemmaProcessor(images, tokenizer)
    config = transformers.PaliGemmaConfig(
        text_config={"model_type": "gemma", **decoder(tokenizer)},
        vision_config={**tower(**SIGLIP), "projection_dim": WIDTH},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=WIDTH, hidden_size=WIDTH, tie_word_embeddings=True,
    )  # fmt: skip
    return config, processor


PALIGEMMA = Recipe(family_for("paligemma"), LOCATIONS, SQUARE, paligemma_tokenizer, build_paligemma)

# InternVL -----------------------------------------------------------------------------------------------

INTERN = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
    *("<ref>", "</ref>", "<box>", "</box>"),
)
INTERN_NAMES = {
    "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}  # fmt: skip


def internvl_tokenizer() -> Any:
    """InternVL's special tokens and ChatML around the words."""
    pieces = (*prompt_pieces(family_for("internvl"), INTERN), *CHATML_PIECES, "\n", "[[", ", ", "]]")
    tokenizer = word_tokenizer(
        pieces, PER_MILLE, INTERN,
        pad_token="<|endoftext|>", eos_token="<|im_end|>", extra_special_tokens=INTERN_NAMES,
    )  # fmt: skip
    tokenizer.chat_template = chatml("<IMG_CONTEXT>\\n")
    return tokenizer


def build_internvl(tokenizer: Any) -> tuple[Any, Any]:
    """An InternViT and a Qwen2; one tile of 80 pixels, 8 x 8 patches shuffled into 16 tokens."""
    images = transformers.GotOcr2ImageProcessorPil(size={"height": 80, "width": 80}, max_patches=1)
    processor = images_only(transformers.InternVLProcessor)(
        images, tokenizer, image_seq_length=16, chat_template=tokenizer.chat_template
    )
    vision = tower(hidden_size=64, intermediate_size=128, num_attention_heads=2, use_qk_norm=True)
    config = transformers.InternVLConfig(
        text_config={"model_type": "qwen2", **decoder(tokenizer)},
        vision_config={**vision, "image_size": [80, 80], "patch_size": [10, 10]},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=16, tie_word_embeddings=True,
    )  # fmt: skip
    return config, processor


INTERNVL = Recipe(family_for("internvl"), PER_MILLE, SQUARE, internvl_tokenizer, build_internvl)

RECIPES = {
    recipe.family.name: recipe for recipe in (QWEN3_VL, QWEN2_VL, LLAVA_15, PALIGEMMA, INTERNVL, FLORENCE2)
}
