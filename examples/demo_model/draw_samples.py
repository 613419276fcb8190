"""Draw the sample images that ship with the package: ``python examples/demo_model/draw_samples.py``."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import vlm_nb.demo
from vlm_nb.demo.scenes import draw_scene

#: File name: (seed, number of objects, width, height), pixels of the upright image.
SAMPLES = {
    "shapes.png": (3099, 4, 640, 640),
    "wide.png": (517, 3, 800, 500),
    "tall.jpg": (331, 3, 480, 720),
    "rotated.jpg": (1332, 3, 640, 480),
    "small.png": (58, 2, 96, 96),
}
ORIENTATION = 0x0112


def draw_samples(folder: Path) -> None:
    """Write every sample; ``rotated.jpg`` lies on its side and says so in its EXIF orientation."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (seed, count, width, height) in SAMPLES.items():
        image = draw_scene(seed, min_objects=count, max_objects=count, size=(width, height)).image
        if name == "rotated.jpg":
            _save_rotated(image, folder / name)
        else:
            image.save(folder / name, quality=90, optimize=True)


def _save_rotated(image: Image.Image, path: Path) -> None:
    """Turn the pixels a quarter to the left and note that showing them needs a quarter to the right."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(path, quality=90, exif=exif)


if __name__ == "__main__":
    draw_samples(vlm_nb.demo.weights_path().with_name("images"))
