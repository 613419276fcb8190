"""The mixed load, and the model folders that the benchmark runs it on. Everything is seeded."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

STEP = 28
QUESTIONS = (
    "Describe this image.",
    "How many objects are there?",
    "What colour is the largest object, and where in the picture does it stand?",
    "Is there a red circle? Answer yes or no, and say why.",
)
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"),
    "<|video_pad|>",
)
NEVER = "<|image_pad|>"  # the end token of benchmark folders: no model writes it, so lengths are as asked


@dataclass(frozen=True, slots=True)
class Item:
    """One request: ``image`` counts in the load's images, ``tokens`` is the length of the answer."""

    image: int
    question: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Load:
    images: list[Image.Image]
    items: list[Item]

    def cost(self, item: Item) -> int:
        """Image tokens of ``item``."""
        width, height = self.images[item.image].size
        return width * height // STEP**2


def mixed_load(*, requests: int = 96, images: int = 64, longest: int = 672, seed: int = 8) -> Load:
    """Long sides of 112 to ``longest`` pixels, sides 1:3 to 3:1, answers of 8 to 128 tokens.

    A quarter of the images is asked twice or more.
    """
    rng = random.Random(seed)
    pictures = [_picture(_size(rng, longest), seed=seed * 1000 + n) for n in range(images)]
    again = [rng.randrange(images // 4) for _ in range(requests - images - images // 4)]
    asked = [*range(images), *range(images // 4), *again][:requests]
    rng.shuffle(asked)
    items = [Item(image, rng.choice(QUESTIONS), rng.randint(8, 128)) for image in asked]
    return Load(pictures, items)


def chosen_load(*, quick: bool, first: bool) -> Load:
    """The mixed load, or 24 requests over 16 small images; with ``first`` one token each: prefill alone."""
    load = mixed_load(requests=24, images=16, longest=336) if quick else mixed_load()
    return Load(load.images, [replace(item, tokens=1) for item in load.items]) if first else load


def distinct_load(
    *, images: int, sides: tuple[int, int], tokens: int, widest: float = 3, seed: int = 8
) -> Load:
    """As many images, each asked once; long sides of ``sides`` pixels, answers of ``tokens`` tokens.

    Sides are in ratios of 1:``widest`` to ``widest``:1.
    """
    rng = random.Random(seed)
    pictures = [
        _picture(_size(rng, sides[1], shortest=sides[0], widest=widest), seed=seed * 1000 + n)
        for n in range(images)
    ]
    return Load(pictures, [Item(n, QUESTIONS[n % len(QUESTIONS)], tokens) for n in range(images)])


def _size(rng: random.Random, longest: int, *, shortest: int = 112, widest: float = 3) -> tuple[int, int]:
    long, ratio = rng.uniform(shortest, longest), widest ** rng.uniform(-1, 1)
    sides = (long, long / ratio) if ratio >= 1 else (long * ratio, long)
    return (max(STEP, round(sides[0] / STEP) * STEP), max(STEP, round(sides[1] / STEP) * STEP))


def _picture(size: tuple[int, int], seed: int) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)


# Models -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a Qwen2.5-VL as its config has them."""

    text: dict[str, Any]
    vision: dict[str, Any]
    tied: bool = False


def _text(*numbers: int, context: int = 4096, **more: Any) -> dict[str, Any]:
    """``numbers``: hidden size, size within the MLP, layers, heads, heads of keys and values, vocabulary."""
    names = (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "vocab_size"),
    )
    return {**dict(zip(names, numbers, strict=True)), "max_position_embeddings": context, **more}


def _vision(*numbers: int, whole: list[int]) -> dict[str, Any]:
    """``numbers``: layers, hidden size, size within the MLP, heads; ``whole`` layers attend to all."""
    names = ("depth", "hidden_size", "intermediate_size", "num_heads")
    return {**dict(zip(names, numbers, strict=True)), "fullatt_block_indexes": whole, "window_size": 112}


ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
SMALL_ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]}
TOWER = _vision(32, 1280, 3420, 16, whole=[7, 15, 23, 31])
SHAPES = {
    "tiny": Shape(
        _text(128, 256, 2, 2, 1, 32_768, rope_parameters=SMALL_ROPE), _vision(2, 64, 128, 2, whole=[1]), True
    ),
    "120m": Shape(
        _text(640, 2048, 12, 10, 2, 32_000, rope_parameters=SMALL_ROPE),
        _vision(8, 512, 1024, 8, whole=[1, 3, 5, 7]),
    ),
    "3b": Shape(
        _text(2048, 11_008, 36, 16, 2, 151_936, context=128_000, rope_parameters=ROPE), TOWER, tied=True
    ),
    "7b": Shape(_text(3584, 18_944, 28, 28, 4, 152_064, context=128_000, rope_parameters=ROPE), TOWER),
}
"""About 7 and 120 million parameters, and Qwen2.5-VL 3B and 7B (their ``config.json``)."""
SHARD = "4GB"


def prepare(name: str, folder: Path, device: str = "cpu") -> Path:
    """Write the model called ``name`` ("demo" or one of ``SHAPES``) into ``folder`` and return it.

    Random weights are drawn on ``device``.
    """
    if name == "demo":
        _copy_demo(folder)
    else:
        _random_model(folder, SHAPES[name], device)
    return folder


def _copy_demo(folder: Path) -> None:
    from transformers import AutoTokenizer

    from vlm_nb import demo

    shutil.copytree(demo.weights_path(), folder, dirs_exist_ok=True)
    end = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(NEVER)
    _change(folder / "generation_config.json", eos_token_id=end)
    _change(folder / "preprocessor_config.json", size={"shortest_edge": 784, "longest_edge": 10**6})


def _change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | values), encoding="utf-8")


def _random_model(folder: Path, shape: Shape, device: str) -> None:
    """A Qwen2.5-VL of random parameters that never says the end, nor a word that its tokenizer lacks.

    The scores of those are zero: the largest of many thousand random ones is above it.
    """
    import torch
    from transformers import Qwen2VLImageProcessorPil

    tokenizer = _tokenizer()
    model = _drawn(_config(shape, tokenizer.convert_tokens_to_ids), device)
    head = model.get_output_embeddings().weight.data
    if not shape.tied:
        torch.nn.init.normal_(head)
    head[list(tokenizer.all_special_ids)] = 0
    head[len(tokenizer) :] = 0
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(NEVER)
    model.generation_config.pad_token_id = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    model.save_pretrained(folder, max_shard_size=SHARD)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(min_pixels=784, max_pixels=10**6).save_pretrained(folder)


def _config(shape: Shape, ids: Callable[[str], int]) -> Any:
    from transformers import Qwen2_5_VLConfig

    words = {"bos_token_id": 0, "eos_token_id": ids(NEVER), "pad_token_id": ids("<|endoftext|>")}
    return Qwen2_5_VLConfig(
        text_config=shape.text | words,
        vision_config=shape.vision | {"out_hidden_size": shape.text["hidden_size"]},
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=shape.tied,
    )


def _drawn(config: Any, device: str) -> Any:
    """A model of ``config`` with random bfloat16 weights, made on ``device``."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)


def _tokenizer(size: int = 32_000) -> Any:
    """Bytes, and words that only the random model writes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from vlm_nb import demo

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [f"Ġw{n}" for n in range(size - len(letters) - len(SPECIAL))]
    backend = Tokenizer(models.BPE({text: n for n, text in enumerate([*letters, *words])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|endoftext|>", eos_token="<|im_end|>"
    )
    tokenizer.chat_template = (demo.weights_path() / "chat_template.jinja").read_text(encoding="utf-8")
    return tokenizer
