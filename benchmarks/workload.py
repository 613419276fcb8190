"""The mixed load, and the model folders that the benchmark runs it on. Everything is seeded."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
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


def quick_load() -> Load:
    """24 requests over 16 small images, to see whether all works."""
    return mixed_load(requests=24, images=16, longest=336)


def _size(rng: random.Random, longest: int) -> tuple[int, int]:
    long, ratio = rng.uniform(112, longest), 3 ** rng.uniform(-1, 1)
    sides = (long, long / ratio) if ratio >= 1 else (long * ratio, long)
    return (max(STEP, round(sides[0] / STEP) * STEP), max(STEP, round(sides[1] / STEP) * STEP))


def _picture(size: tuple[int, int], seed: int) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)


# Models -----------------------------------------------------------------------------------------------------


def prepare(name: str, folder: Path) -> Path:
    """Write the model called ``name`` ("demo" or "120m") into ``folder`` and return it."""
    if name == "demo":
        _copy_demo(folder)
    else:
        _random_model(folder)
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


def _random_model(folder: Path) -> None:
    """A Qwen2.5-VL of about 120 million random parameters; its head is its own, and never says the end."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

    tokenizer = _tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 640, "intermediate_size": 2048,
            "num_hidden_layers": 12, "num_attention_heads": 10, "num_key_value_heads": 2,
            "max_position_embeddings": 4096, "bos_token_id": 0, "eos_token_id": ids(NEVER),
            "pad_token_id": ids("<|endoftext|>"),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]},
        },
        vision_config={
            "depth": 8, "hidden_size": 512, "intermediate_size": 1024, "num_heads": 8,
            "out_hidden_size": 640, "fullatt_block_indexes": [1, 3, 5, 7],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    torch.nn.init.normal_(model.lm_head.weight)
    model.lm_head.weight.data[list(tokenizer.all_special_ids)] = 0
    model.generation_config.eos_token_id = ids(NEVER)
    model.generation_config.pad_token_id = ids("<|endoftext|>")
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(min_pixels=784, max_pixels=10**6).save_pretrained(folder)


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
