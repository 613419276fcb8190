"""Loading the public scripted engine in tests, and small drawn images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from vlm_nb.engines.spec import LoadSpec
from vlm_nb.model import VLM
from vlm_nb.opening import open_model


def scripted(script: Any = None, *, name: str = "scripted", **engine_args: Any) -> VLM:
    """Return a model whose answers are ``script``; it speaks Qwen2.5-VL's format unless told otherwise."""
    return open_model(LoadSpec(model=name, engine="scripted", script=script, engine_args=engine_args))


def picture(
    width: int = 112, height: int = 84, box: tuple[int, int, int, int] = (20, 10, 60, 50)
) -> Image.Image:
    """A white image with one red rectangle at ``box`` (x_min, y_min, x_max, y_max, in pixels)."""
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).rectangle(box, fill="red")
    return image


def picture_files(folder: Path, count: int) -> list[Path]:
    """Write ``count`` pictures, each of another width."""
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        picture(60 + number, 60).save(path)
    return paths


def boxes_json(*boxes: tuple[float, float, float, float], label: str = "red box") -> str:
    """Write boxes, in pixels of the seen image, as Qwen2.5-VL does."""
    rows = ",\n\t".join(f'{{"bbox_2d": [{a}, {b}, {c}, {d}], "label": "{label}"}}' for a, b, c, d in boxes)
    return f"```json\n[\n\t{rows}\n]\n```"
