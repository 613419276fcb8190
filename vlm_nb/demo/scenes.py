"""Drawn scenes with known truth: the world that the demo model knows.

Pure and seeded: the same arguments always give the same pixels and the same objects. Pillow is the only
dependency.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw

Box = tuple[float, float, float, float]
Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (220, 36, 38),
    "orange": (250, 140, 20),
    "yellow": (248, 220, 40),
    "green": (40, 160, 64),
    "blue": (36, 84, 214),
    "purple": (130, 50, 170),
    "pink": (250, 140, 190),
    "brown": (124, 72, 30),
}
BACKGROUNDS: dict[str, Colour] = {"white": (248, 248, 248), "grey": (168, 170, 172), "black": (20, 20, 22)}

#: Corners of each many-sided shape in its own bounding box, x to the right and y down, both 0..1.
_POLYGONS: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((0, 0), (1, 0), (1, 1), (0, 1)),
    "triangle": ((0.5, 0), (1, 1), (0, 1)),
    "diamond": ((0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)),
    "cross": tuple(
        (x / 3, y / 3)
        for x, y in (
            (1, 0),
            (2, 0),
            (2, 1),
            (3, 1),
            (3, 2),
            (2, 2),
            (2, 3),
            (1, 3),
            (1, 2),
            (0, 2),
            (0, 1),
            (1, 1),
        )
    ),
}
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross")

#: Canvases (width, height), pixels, that images of common aspect ratios land on: at most 25 cells of 28 x 28.
CANVASES = (
    (140, 140), (140, 112), (112, 140), (168, 112), (112, 168), (168, 84), (84, 168), (196, 84), (84, 196),
    (224, 84), (84, 224), (224, 56), (56, 224),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One drawn object; `bbox` is (x_min, y_min, x_max, y_max), floats in 0..1 of the scene's image."""

    shape: str
    colour: str
    bbox: Box

    @property
    def name(self) -> str:
        """Colour and shape, for example ``red circle``."""
        return f"{self.colour} {self.shape}"

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the middle of the box, floats in 0..1 of the scene's image."""
        x_min, y_min, x_max, y_max = self.bbox
        return (x_min + x_max) / 2, (y_min + y_max) / 2


@dataclass(frozen=True, slots=True)
class Scene:
    """An RGB image and what is in it; `objects` go from left to right by their centres."""

    image: Image.Image
    objects: tuple[SceneObject, ...]
    background: str


def draw_scene(
    seed: int,
    *,
    min_objects: int = 1,
    max_objects: int = 4,
    size: tuple[int, int] | None = (140, 140),
    stretch: float = 0.0,
    noise: int = 0,
    jpeg_quality: int | None = None,
    shapes: Sequence[str] = SHAPES,
) -> Scene:
    """Draw a scene of separate objects on a plain background.

    Args:
        seed: the only source of chance.
        min_objects: fewest objects.
        max_objects: most objects; fewer when they do not fit.
        size: (width, height) in pixels; None picks one of `CANVASES`.
        stretch: how far width and height of an object may differ, as a log ratio (0.15 is about 15 %).
        noise: largest change of a pixel's channel by uniform noise, 0..255.
        jpeg_quality: compress to JPEG and back at this quality.
        shapes: what objects are chosen from, some of `SHAPES`.
    """
    rng = random.Random(seed)
    width, height = size or rng.choice(CANVASES)
    background = rng.choice(tuple(BACKGROUNDS))
    boxes = _place(rng, rng.randint(min_objects, max_objects), (width, height), stretch)
    objects = [_choose(rng, box, (width, height), shapes) for box in boxes]
    image = _draw(rng, objects, background, (width, height))
    if noise:
        image = _add_noise(rng, image, noise)
    if jpeg_quality is not None:
        image = _through_jpeg(image, jpeg_quality)
    return Scene(image, tuple(sorted(objects, key=lambda thing: thing.centre)), background)


def _choose(rng: random.Random, box: Box, size: tuple[int, int], shapes: Sequence[str]) -> SceneObject:
    width, height = size
    bbox = (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
    return SceneObject(rng.choice(shapes), rng.choice(tuple(COLOURS)), bbox)


def _place(rng: random.Random, count: int, size: tuple[int, int], stretch: float) -> list[Box]:
    """Boxes in pixels, apart from each other and with centres that differ in x: left to right is clear."""
    base = math.sqrt(size[0] * size[1])
    largest = {1: 0.46, 2: 0.42, 3: 0.36, 4: 0.34}.get(count, 0.28)
    boxes: list[Box] = []
    for _ in range(60 * count):
        box = _candidate(rng, rng.uniform(0.16, largest) * base, size, stretch)
        if all(_apart(box, other, base) for other in boxes):
            boxes.append(box)
        if len(boxes) == count:
            break
    return boxes


def _candidate(rng: random.Random, extent: float, size: tuple[int, int], stretch: float) -> Box:
    ratio = math.exp(rng.uniform(-stretch, stretch))
    width = min(extent * ratio, 0.85 * size[0])
    height = min(extent / ratio, 0.85 * size[1])
    x_min, y_min = rng.uniform(0, size[0] - width), rng.uniform(0, size[1] - height)
    x_min, y_min, width, height = (round(value * 3) / 3 for value in (x_min, y_min, width, height))
    return x_min, y_min, min(x_min + width, size[0]), min(y_min + height, size[1])


def _apart(one: Box, other: Box, base: float) -> bool:
    gap = 0.02 * base
    beside = one[2] + gap < other[0] or other[2] + gap < one[0]
    stacked = one[3] + gap < other[1] or other[3] + gap < one[1]
    return (beside or stacked) and abs(one[0] + one[2] - other[0] - other[2]) > 2 * gap


def _draw(
    rng: random.Random, objects: list[SceneObject], background: str, size: tuple[int, int]
) -> Image.Image:
    """Drawn three times as large and averaged down, so that edges are anti-aliased."""
    large = (size[0] * 3, size[1] * 3)
    image = Image.new("RGB", large, _jitter(rng, BACKGROUNDS[background], 7))
    pen = ImageDraw.Draw(image)
    for thing in objects:
        x_min, y_min, x_max, y_max = (value * large[i % 2] for i, value in enumerate(thing.bbox))
        _draw_shape(
            pen, thing.shape, (x_min, y_min, x_max - 1, y_max - 1), _jitter(rng, COLOURS[thing.colour], 12)
        )
    return image.reduce(3)


def _draw_shape(pen: ImageDraw.ImageDraw, shape: str, box: Box, colour: Colour) -> None:
    if shape == "circle":
        pen.ellipse(box, fill=colour)
        return
    x_min, y_min, x_max, y_max = box
    corners = _star() if shape == "star" else _POLYGONS[shape]
    pen.polygon([(x_min + x * (x_max - x_min), y_min + y * (y_max - y_min)) for x, y in corners], fill=colour)


def _star() -> list[tuple[float, float]]:
    """Ten corners of a five-pointed star, stretched so that they fill the box 0..1."""
    angles = [math.pi * i / 5 for i in range(10)]
    points = [
        (math.sin(angle) * (0.45 if i % 2 else 1), -math.cos(angle) * (0.45 if i % 2 else 1))
        for i, angle in enumerate(angles)
    ]
    left, top = min(x for x, _ in points), min(y for _, y in points)
    width, height = max(x for x, _ in points) - left, max(y for _, y in points) - top
    return [((x - left) / width, (y - top) / height) for x, y in points]


def _jitter(rng: random.Random, colour: Colour, amount: int) -> Colour:
    red, green, blue = (min(255, max(0, channel + rng.randint(-amount, amount))) for channel in colour)
    return red, green, blue


def _add_noise(rng: random.Random, image: Image.Image, amount: int) -> Image.Image:
    raw = Image.frombytes("RGB", image.size, rng.randbytes(image.width * image.height * 3))
    grain = raw.point([round(value * 2 * amount / 255) for value in range(256)] * 3)
    return ImageChops.subtract(ImageChops.add(image, grain), Image.new("RGB", image.size, (amount,) * 3))


def _through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as compressed:
        return compressed.convert("RGB")
