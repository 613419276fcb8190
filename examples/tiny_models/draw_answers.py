"""The picture of docs/tiny_models.md: what each tiny model answers to the same held-out images.

``python examples/tiny_models/draw_answers.py tests/tiny_trained/*`` writes docs/images/tiny_models.png.
Dashed boxes are drawn truth, full ones are the model's.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scoring import Answered, answer_all

import vlm_nb
from vlm_nb.demo.scenes import Box

TARGET = Path(__file__).parents[2] / "docs" / "images" / "tiny_models.png"
NUMBERS = (3000, 3001, 3002)
"""One square, one wide and one tall scene; neither the table nor the tests ask about them."""


def main(folders: list[Path]) -> None:
    """Ask every model, draw a row for each."""
    torch.set_num_threads(1)
    figure = Figure(figsize=(8.4, 2.6 * len(folders)), layout="constrained")
    grid = figure.subplots(len(folders), len(NUMBERS), squeeze=False)
    for row, folder in zip(grid, folders, strict=True):
        for axes, answer in zip(row, answers_of(folder), strict=True):
            draw(axes, answer)
        row[0].set_ylabel(folder.name, fontsize=10)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(TARGET, dpi=100)


def answers_of(folder: Path) -> list[Answered]:
    """What the model says about the scenes."""
    model = vlm_nb.load(str(folder), dtype="float32", device_map="cpu")
    try:
        return answer_all(model, NUMBERS)
    finally:
        model.unload()


def draw(axes: Axes, answer: Answered) -> None:
    """The image, true and found boxes, and the caption below."""
    width, height = answer.scene.image.size
    axes.imshow(answer.scene.image, extent=(0, width, height, 0))
    axes.set_xticks([])
    axes.set_yticks([])
    for thing in answer.scene.objects:
        axes.add_patch(rectangle(thing.bbox, width, height, "--", "0.45"))
    for phrase in answer.detect.grounded_phrases:
        axes.add_patch(rectangle(phrase.bbox, width, height, "-", "deeppink"))
        x, y = phrase.bbox[0] * width, phrase.bbox[1] * height
        axes.text(x, y - 4, phrase.phrase, fontsize=7, color="deeppink", parse_math=False)
    axes.set_xlabel("\n".join(textwrap.wrap(answer.caption.caption, 44)), fontsize=7.5)


def rectangle(bbox: Box, width: int, height: int, style: str, colour: str) -> Rectangle:
    """A box (x_min, y_min, x_max, y_max), 0..1, in pixels of the image."""
    x0, y0, x1, y1 = bbox[0] * width, bbox[1] * height, bbox[2] * width, bbox[3] * height
    return Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, linestyle=style, edgecolor=colour, linewidth=1.4)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
