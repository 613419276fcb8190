"""One recipe a family: its real classes at a tiny size, its processor and its chat template."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import transformers
from words import prompt_pieces, word_tokenizer

from vlm_nb.engines.hf.processor import images_only
from vlm_nb.families import Family, family_for

WIDTH, VISION = 96, 96
SQUARE = ((56, 56), (72, 54), (54, 72), (70, 42), (42, 70))
"""Sizes (width, height) of drawn scenes for families that bring every image to one square."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a family's tiny model is made.

    ``numbers`` are the texts of coordinates in order of value. ``canvases`` are the sizes (width, height) of
    the scenes that it trains on; half of them are the first.
    """

    family: Family
    numbers: tuple[str, ...]
    canvases: tuple[tuple[int, int], ...]
    tokenizer: Callable[[], Any]
    build: Callable[[Any], tuple[Any, Any]]


PER_MILLE = tuple(str(value) for value in range(1001))
FRACTIONS = tuple(f"{value / 1000:.3f}".rstrip("0").rstrip(".") for value in range(1001))
LOCATIONS = tuple(f"<loc{value:04d}>" for value in range(1024))

_TURNS = """\
{%- for message in messages -%}OPEN
{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{ 'IMAGE' }}{%- elif 'text' in part -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}{%- endif -%}CLOSE
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT' }}{%- endif -%}
"""


def template(opening: str, role: str, image: str, closing: str, assistant: str) -> str:
    """A chat template of the published shape; ``role`` is the expression that stands for ROLE."""
    opening = "{{ '" + opening.replace("ROLE", f"' + {role} + '") + "' }}"
    text = _TURNS.replace("OPEN", opening).replace("CLOSE", "{{ '" + closing + "' }}")
    return text.replace("IMAGE", image).replace("ASSISTANT", assistant)


def chatml(image: str) -> str:
    """The template of Qwen and InternVL."""
    return template(
        "<|im_start|>ROLE\\n", "message['role']", image, "<|im_end|>\\n", "<|im_start|>assistant\\n"
    )


CHATML_PIECES = ("user\n", "assistant\n", "system\n")


def decoder(tokenizer: Any, **more: Any) -> dict[str, Any]:
    """Settings of the text model."""
    return {
        "vocab_size": len(tokenizer), "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24,
        "max_position_embeddings": 2048, "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id, **more,
    }  # fmt: skip


def tower(**more: Any) -> dict[str, Any]:
    """Settings of a vision tower for squares of 56 pixels: 4 x 4 patches."""
    return {
        "hidden_size": VISION, "intermediate_size": 2 * VISION, "num_hidden_layers": 3,
        "num_attention_heads": 3, "image_size": 56, "patch_size": 14, **more,
    }  # fmt: skip


SIGLIP = {"model_type": "siglip_vision_model", "vision_use_head": False}


# Qwen3-VL -----------------------------------------------------------------------------------------------

QWEN = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"),
    *("<|video_pad|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
)
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
JSON_PIECES = (
    '```json\n[\n\t{"bbox_2d": [', '], "label": "', '"},\n\t{"bbox_2d": [', '"}\n]\n```',
    "```json\n[]\n```", ", ",
)  # fmt: skip
QWEN3_PATCH = 8


def qwen_tokenizer(family: Family, pieces: tuple[str, ...]) -> Any:
    """Return Qwen's special tokens and ChatML around the words."""
    pieces = (*prompt_pieces(family, QWEN), *CHATML_PIECES, *pieces)
    tokenizer = word_tokenizer(pieces, PER_MILLE, QWEN, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    tokenizer.chat_template = chatml(QWEN_IMAGE)
    return tokenizer


def qwen_ids(tokenizer: Any) -> dict[str, int]:
    """Ids that Qwen's configurations name."""
    ids = tokenizer.convert_tokens_to_ids
    return {
        "image_token_id": ids("<|image_pad|>"), "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"), "vision_end_token_id": ids("<|vision_end|>"),
    }  # fmt: skip


def build_qwen3_vl(tokenizer: Any) -> tuple[Any, Any]:
    """Patches of 8 pixels, cells of 16, at most 12 cells an image."""
    cell = 2 * QWEN3_PATCH
    images = transformers.Qwen2VLImageProcessorPil(
        size={"shortest_edge": 8 * cell**2, "longest_edge": 12 * cell**2},
        patch_size=QWEN3_PATCH, image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    processor = images_only(transformers.Qwen3VLProcessor)(
        images, tokenizer, chat_template=tokenizer.chat_template
    )
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 4, 4], "mrope_interleaved": True}
    vision = {
        "depth": 3, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2,
        "out_hidden_size": WIDTH, "patch_size": QWEN3_PATCH, "num_position_embeddings": 64,
        "deepstack_visual_indexes": [1],
    }  # fmt: skip
    config = transformers.Qwen3VLConfig(
        text_config=decoder(tokenizer, rope_parameters=rope), vision_config=vision,
        tie_word_embeddings=True, **qwen_ids(tokenizer),
    )  # fmt: skip
    return config, processor


QWEN3_VL = Recipe(
    family=family_for("qwen3_vl"),
    numbers=PER_MILLE,
    canvases=((48, 48), (64, 48), (48, 64), (64, 32), (32, 64)),
    tokenizer=lambda: qwen_tokenizer(family_for("qwen3_vl"), JSON_PIECES),
    build=build_qwen3_vl,
)

# LLaVA --------------------------------------------------------------------------------------------------

LLAVA = ("<s>", "</s>", "<pad>", "<image>")


def llava_tokenizer() -> Any:
    """LLaVA 1.5's turns around the words."""
    pieces = (*prompt_pieces(family_for("llava"), LLAVA), "USER: ", " ASSISTANT:", "ASSISTANT:")
    tokenizer = word_tokenizer(
        (*pieces, ": [", ", ", "]\n"), FRACTIONS, LLAVA,
        bos_token="<s>", eos_token="</s>", pad_token="<pad>",
    )  # fmt: skip
    tokenizer.chat_template = template("ROLE: ", "message['role'] | upper", "<image>\\n", " ", "ASSISTANT:")
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

RECIPES = {recipe.family.name: recipe for recipe in (QWEN3_VL, LLAVA_15, PALIGEMMA, INTERNVL)}
