"""Lessons: drawn scenes, the family's own prompts, and the answers that its own writer gives.

A batch holds some images, each with two questions in rows of their own: its caption, and all of its boxes or
those of one phrase. Prompts and pixels come from the family's preparation and the real processor.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from joining import Inputs, Prefix, Row, apart, in_one
from PIL import Image
from recipes import Recipe

from vlm_nb.demo.scenes import COLOURS, Scene, SceneObject, draw_scene
from vlm_nb.engines.hf.processor import image_facts
from vlm_nb.families.base import ImageLimits
from vlm_nb.grounding import write
from vlm_nb.results import Frame, GroundedPhrase

HELD_OUT_SEED = 1 << 40
"""Seeds from here on are never trained on."""
ROWS = 2
MOST_IMAGES = 256
KNOWN_SHAPES = ("circle", "square", "triangle")
_COLOURS = tuple(COLOURS)


@dataclass(frozen=True, slots=True)
class Lesson:
    """A question with its true answer; ``phrase`` is what it asks for."""

    task: str
    phrase: str | None
    answer: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of one step: N images, R = 2 N rows of L tokens (or none), M tokens to predict, K objects.

    ``pixels`` is what ``get_image_features`` takes; ``inputs`` what the model takes beside the features.
    ``targets`` [M] are flat indices of the tokens to predict from, ``labels`` [M] what follows, ``values``
    [M] the place of a label among the numbers (-1: no number). ``places`` [K] is the image token under the
    centre of each object, ``boxes`` [K, 4] its (x_min, y_min, x_max, y_max) as places among the numbers,
    ``kinds`` [K, 2] its colour and its shape.
    """

    pixels: dict[str, torch.Tensor]
    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor
    labels: torch.Tensor
    values: torch.Tensor
    places: torch.Tensor
    boxes: torch.Tensor
    kinds: torch.Tensor


def article(words: str) -> str:
    """The words with their indefinite article."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def caption_of(scene: Scene) -> str:
    """Every object from left to right, and the ground."""
    listed = " and ".join(article(thing.name) for thing in scene.objects)
    return f"{listed[0].upper()}{listed[1:]} on a {scene.background} background"


def lessons(recipe: Recipe, scene: Scene, frame: Frame, phrase: str | None) -> list[Lesson]:
    """Two lessons about a scene; ``frame`` says how it lies in what the model sees."""
    things = [thing for thing in scene.objects if phrase in (None, thing.name)]
    task = "detect" if phrase is None else "locate"
    return [
        Lesson("caption", None, caption_of(scene)),
        Lesson(task, phrase, _boxes(recipe, things, frame)),
    ]


def _boxes(recipe: Recipe, things: Sequence[SceneObject], frame: Frame) -> str:
    phrases = [GroundedPhrase(thing.name, thing.bbox) for thing in things]
    return write(phrases, str(recipe.family.format), frames=[frame])


class Teacher:
    """Makes batches for one model and its processor; batch ``n`` depends on the seed and ``n`` only."""

    def __init__(self, recipe: Recipe, model: Any, processor: Any, *, seed: int) -> None:
        self.recipe, self.model, self.processor, self.seed = recipe, model, processor, seed
        self.tokenizer = processor.tokenizer
        self.image_token = model.config.image_token_id
        self.start = _start(model.config)
        self.limits = _limits(recipe, processor)
        ids = self.tokenizer.convert_tokens_to_ids(list(recipe.numbers))
        self.places = {number: place for place, number in enumerate(ids)}
        self.prefix = lru_cache(maxsize=4096)(self._prefix)
        self.answer = lru_cache(maxsize=4096)(self._answer)

    def batch(self, number: int, images: int, *, most: float, asked: bool = True) -> Batch:
        """Batch ``number``; ``most`` is the chance that a scene may hold two objects.

        Without ``asked`` it holds images only, and no rows.
        """
        rng = random.Random(self.seed * 1_000_003 + number)
        scenes = [self._scene(rng, number * MOST_IMAGES + n, most) for n in range(images)]
        seen = [self.recipe.family.prepare(scene.image, self.limits) for scene in scenes]
        pixels = self.processor.image_processor(
            images=[image for image, _ in seen], return_tensors="pt", **self.recipe.family.processor_kwargs
        )
        frames = [frame for _, frame in seen]
        phrases = [self._phrase(rng, scene) for scene in scenes] if asked else []
        rows = self._rows(scenes, frames, phrases)
        return Batch(dict(pixels), *self._join(rows), *self._objects(scenes, frames))

    def _phrase(self, rng: random.Random, scene: Scene) -> str | None:
        return rng.choice(scene.objects).name if rng.random() < 0.5 else None

    def _scene(self, rng: random.Random, number: int, most: float) -> Scene:
        canvases = self.recipe.canvases
        return draw_scene(
            (self.seed * 1_000_000_007 + number) % HELD_OUT_SEED,
            max_objects=2 if rng.random() < most else 1,
            size=canvases[0] if rng.random() < 0.5 else rng.choice(canvases[1:]),
            shapes=KNOWN_SHAPES,
        )

    def _rows(self, scenes: list[Scene], frames: list[Frame], phrases: list[str | None]) -> list[Row]:
        rows = []
        for scene, frame, phrase in zip(scenes, frames, phrases, strict=False):
            for lesson in lessons(self.recipe, scene, frame, phrase):
                prompt = self.recipe.family.prompt_for(lesson.task, lesson.phrase)
                rows.append((self.prefix(prompt, frame.seen), self.answer(lesson.answer)))
        return rows

    def _objects(self, scenes: list[Scene], frames: list[Frame]) -> tuple[torch.Tensor, ...]:
        """Places, boxes and kinds of all objects."""
        first, objects = 0, []
        for scene, frame in zip(scenes, frames, strict=True):
            grid = self.grid(frame)
            objects += [self._object(thing, frame, grid, first) for thing in scene.objects]
            first += self.recipe.lead + grid[0] * grid[1]
        return tuple(torch.tensor(column) for column in zip(*objects, strict=True))

    def grid(self, frame: Frame) -> tuple[int, int]:
        """(columns, rows) of image tokens."""
        patch = self.limits.patch
        if patch:
            return frame.seen[0] // patch, frame.seen[1] // patch
        side = round(self.prefix("x", frame.seen).ids.count(self.image_token) ** 0.5)
        return side, side

    def _object(
        self, thing: SceneObject, frame: Frame, grid: tuple[int, int], first: int
    ) -> tuple[int, list[int], list[int]]:
        box = [value / frame.seen[i % 2] for i, value in enumerate(frame.to_seen(thing.bbox))]
        column, row = (int((box[i] + box[i + 2]) / 2 * grid[i]) for i in (0, 1))
        top = len(self.recipe.numbers) - 1
        kind = [_COLOURS.index(thing.colour), KNOWN_SHAPES.index(thing.shape)]
        return first + self.recipe.lead + row * grid[0] + column, [round(value * top) for value in box], kind

    def _prefix(self, prompt: str, size: tuple[int, int]) -> Prefix:
        """A question as the engine encodes it, about an image of this size."""
        text = self._rendered(prompt)
        options = {**self.recipe.family.processor_kwargs, "return_tensors": "pt"}
        inputs = self.processor(images=[Image.new("RGB", size)], text=[text], **options)
        positions = None
        if "image_grid_thw" in inputs:
            marks = (inputs["input_ids"] == self.image_token).int()
            positions = self.model.model.get_rope_index(
                inputs["input_ids"], mm_token_type_ids=marks, image_grid_thw=inputs["image_grid_thw"]
            )[0][:, 0]
        return Prefix(tuple(inputs["input_ids"][0].tolist()), positions)

    def _rendered(self, prompt: str) -> str:
        plain = self.recipe.family.plain_prompt([self.recipe.family.user_message(prompt, 1)])
        if plain is not None:
            return plain
        parts = [{"type": "image"}, {"type": "text", "text": prompt}]
        turns = [{"role": "user", "content": parts}]
        return str(self.processor.apply_chat_template(turns, add_generation_prompt=True))

    def _answer(self, text: str) -> tuple[int, ...]:
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        opening = () if self.start is None else (self.tokenizer.bos_token_id,)
        return (*opening, *ids, self.tokenizer.eos_token_id)

    def _join(self, rows: list[Row]) -> tuple[Inputs, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Inputs of the rows; where answers are predicted from, and what they are."""
        pad = self.tokenizer.pad_token_id
        inputs, targets = in_one(rows, pad) if self.start is None else apart(rows, pad, self.start)
        if self.recipe.family.name != "paligemma":  # there the question is seen from both sides
            inputs.pop("token_type_ids", None)
        labels = [label for _, answer in rows for label in answer]
        values = torch.tensor([self.places.get(label, -1) for label in labels])
        return inputs, torch.tensor(targets), torch.tensor(labels), values


def _start(config: Any) -> int | None:
    """What a decoder's answers begin after; None where question and answer are one sequence."""
    return config.text_config.decoder_start_token_id if config.is_encoder_decoder else None


def _limits(recipe: Recipe, processor: Any) -> ImageLimits:
    facts = image_facts(processor)
    return recipe.family.limits_for(
        ImageLimits(
            min_pixels=facts.get("min_pixels"), max_pixels=facts.get("max_pixels"),
            patch=facts.get("patch"), size=facts.get("image_size"),
        )
    )  # fmt: skip
