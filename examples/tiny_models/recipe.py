"""What recipes have in common: sizes, chat templates, and the settings of text models and vision towers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vlm_nb.families import Family

WIDTH, VISION = 96, 96
SQUARE = ((56, 56), (72, 54), (54, 72), (70, 42), (42, 70))
"""Sizes (width, height) of drawn scenes for families that bring every image to one square."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a family's tiny model is made.

    ``numbers`` are the texts of coordinates in order of value. ``canvases`` are the sizes (width, height) of
    the scenes that it trains on; half of them are the first. ``lead`` counts the tokens of an image that come
    before those of its grid.
    """

    family: Family
    numbers: tuple[str, ...]
    canvases: tuple[tuple[int, int], ...]
    tokenizer: Callable[[], Any]
    build: Callable[[Any], tuple[Any, Any]]
    lead: int = 0


PER_MILLE = tuple(str(value) for value in range(1001))
FRACTIONS = tuple(f"{value / 1000:.3f}".rstrip("0").rstrip(".") for value in range(1001))
BINS = tuple(f"<loc_{value}>" for value in range(1000))
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


def template(opening: str, image: str, closing: str, assistant: str, role: str = "message['role']") -> str:
    """A chat template: each turn between ``opening`` and ``closing``; ``role`` is what stands for ROLE."""
    opening = "{{ '" + opening.replace("ROLE", f"' + {role} + '") + "' }}"
    text = _TURNS.replace("OPEN", opening).replace("CLOSE", "{{ '" + closing + "' }}")
    return text.replace("IMAGE", image).replace("ASSISTANT", assistant)


def chatml(image: str) -> str:
    """The template of Qwen and InternVL."""
    return template("<|im_start|>ROLE\\n", image, "<|im_end|>\\n", "<|im_start|>assistant\\n")


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
