"""Ask the demo model through plain transformers: chat template, image processor, batched greedy text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

IMAGE = "<|image_pad|>"


@dataclass(frozen=True, slots=True)
class Ask:
    """A question about images, with the true answers of earlier turns where it follows them."""

    images: tuple[Image.Image, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """The model's text, and the (width, height) in pixels of each image as the model saw it."""

    text: str
    seen: tuple[tuple[int, int], ...]


class Answerer:
    """The shipped model as anybody would load it."""

    def __init__(self, folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.bfloat16) -> None:
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=dtype).to(device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
        self.device = device

    def prompt(self, ask: Ask) -> str:
        """The chat template's text, one image mark per image."""
        parts = [*({"type": "image"} for _ in ask.images), {"type": "text", "text": ask.questions[0]}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": parts}]
        for answer, question in zip(ask.answers, ask.questions[1:], strict=True):
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": question}]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    @torch.inference_mode()
    def __call__(self, asks: Sequence[Ask], max_new_tokens: int = 160) -> list[Reply]:
        """Answer a batch, left-padded, greedily."""
        images = [image for ask in asks for image in ask.images]
        pixels = self.processor(images=images, return_tensors="pt")
        grids = [tuple(grid) for grid in pixels["image_grid_thw"].tolist()]
        counts = iter([rows * columns // 4 for _, rows, columns in grids])
        texts = [_expand(self.prompt(ask), [next(counts) for _ in ask.images]) for ask in asks]
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
        marks = (inputs["input_ids"] == self.model.config.image_token_id).int()
        output = self.model.generate(
            **{name: value.to(self.device) for name, value in {**inputs, **pixels}.items()},
            mm_token_type_ids=marks.to(self.device),
            max_new_tokens=max_new_tokens,
        )
        new = self.tokenizer.batch_decode(output[:, marks.shape[1] :], skip_special_tokens=True)
        sizes = iter([(columns * 14, rows * 14) for _, rows, columns in grids])
        return [
            Reply(text, tuple(next(sizes) for _ in ask.images)) for text, ask in zip(new, asks, strict=True)
        ]


def _expand(text: str, counts: list[int]) -> str:
    pieces = text.split(IMAGE)
    middle = [IMAGE * count for count in counts]
    return pieces[0] + "".join(mark + piece for mark, piece in zip(middle, pieces[1:], strict=True))
