"""A tokenizer of whole words: numbers, and the fixed pieces of prompts and answers, are one token each.

Any other text falls back to one token a byte, so every text survives. Short sequences are what makes training
on a processor core possible.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vlm_nb.demo.scenes import BACKGROUNDS, COLOURS, SHAPES
from vlm_nb.families import Family

_OTHERS = r"1000|[01]\.[0-9]{1,3}|[0-9]{1,3}| ?\p{L}+|[\s\S]"
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def word_tokenizer(
    pieces: Sequence[str], numbers: Sequence[str], specials: Sequence[str], **names: Any
) -> PreTrainedTokenizerFast:
    """Return a tokenizer; ``names`` are bos_token, eos_token and so on."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = [*numbers, *pieces, *_words()]
    vocabulary = list(dict.fromkeys([*alphabet, *(_as_bytes(text) for text in plain)]))
    backend = Tokenizer(models.BPE({text: i for i, text in enumerate(vocabulary)}, [], ignore_merges=True))
    longest_first = sorted((re.escape(piece) for piece in pieces), key=len, reverse=True)
    split = pre_tokenizers.Split(Regex("|".join([*longest_first, _OTHERS])), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, _BYTES])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, padding_side="left", clean_up_tokenization_spaces=False,
        model_max_length=2048, **names,
    )  # fmt: skip


def prompt_pieces(family: Family, specials: Iterable[str]) -> list[str]:
    """The fixed parts of the family's own prompts, as they stand between phrases and special tokens."""
    prompts = (family.caption_prompt, family.detect_prompt, family.locate_prompt)
    cuts = "|".join(re.escape(text) for text in ("{phrase}", *specials))
    return [part for prompt in prompts for part in re.split(cuts, prompt) if part]


def _words() -> list[str]:
    words = [*COLOURS, *SHAPES, *BACKGROUNDS, "on", "a", "an", "and", "background", "object", "every"]
    return [*words, *(f" {word}" for word in words), "A", "An"]


def _as_bytes(text: str) -> str:
    return "".join(piece for piece, _ in _BYTES.pre_tokenize_str(text))
