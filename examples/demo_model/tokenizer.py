"""The demo model's tokenizer: byte-level BPE whose numbers and fixed JSON pieces are single tokens."""

from __future__ import annotations

import json

from questions import EMPTY_BOXES
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from wordings import corpus

#: Numbers 0..N-1 are single tokens and their ids are their values.
NUMBERS = 281
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
           "<|image_pad|>", "<|video_pad|>")  # fmt: skip
PIECES = (
    '```json\n[\n\t{"bbox_2d": [',
    '], "label": "',
    '"},\n\t{"bbox_2d": [',
    '"}\n]\n```',
    EMPTY_BOXES,
    ", ",
)
_WORDS = r"'s|'t| ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' or 'image' in part or 'image_url' in part -%}
{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif 'text' in part -%}
{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer from the texts of `questions`; the same every time."""
    vocabulary, merges = _with_numbers(*_learn_words())
    backend = Tokenizer(models.BPE(vocabulary, merges))
    _set_bytes(backend)
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    backend.add_tokens([AddedToken(text, normalized=False) for text in PIECES])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|endoftext|>",
        eos_token="<|im_end|>", bos_token="<|endoftext|>",
        padding_side="left", model_max_length=4096, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _set_bytes(backend: Tokenizer) -> None:
    split = pre_tokenizers.Split(Regex(_WORDS), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()


def _learn_words() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Merges that make every word of the texts one token."""
    backend = Tokenizer(models.BPE())
    _set_bytes(backend)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=4000, min_frequency=1, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(corpus(), trainer)
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _with_numbers(
    words: dict[str, int], merges: list[tuple[str, str]]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Put the numbers first in the vocabulary and add their merges (``1``+``2``, then ``12``+``3``)."""
    numbers = [str(value) for value in range(NUMBERS)]
    rest = [token for token in sorted(words, key=words.__getitem__) if token not in numbers]
    vocabulary = {token: place for place, token in enumerate([*numbers, *rest])}
    digits = [(text[:-1], text[-1]) for text in numbers if len(text) > 1]
    return vocabulary, [*merges, *digits]
