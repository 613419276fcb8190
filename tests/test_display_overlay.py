"""Overlays as pixels: each box where the object is, whatever the image's shape, and in its colour."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shell import Shell, shell

from vlm_nb import display, sources
from vlm_nb.display import overlay_image, prediction_figure, preview_jpeg
from vlm_nb.display.raster import default_scale
from vlm_nb.errors import SourceError
from vlm_nb.results import BBox, GroundedPhrase, Prediction

__all__ = ["shell"]

ORANGE = np.array((0xE6, 0x9F, 0x00))
GREY = (200, 205, 210)


def prediction(image: Image.Image, *phrases: GroundedPhrase, **fields: Any) -> Prediction:
    return Prediction(
        fields.pop("caption", "an answer"),
        grounded_phrases=phrases,
        grounding="found" if phrases else None,
        image_size=image.size,
        preview=preview_jpeg(image),
        **fields,
    )


def orange_extent(image: Image.Image, tolerance: int = 45) -> BBox:
    """(x_min, y_min, x_max, y_max) in 0..1 of the orange strokes that span most of a row or column."""
    near = np.abs(np.asarray(image.convert("RGB")).astype(int) - ORANGE).max(axis=2) <= tolerance
    assert near.any(), "no box was drawn"
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    h, w = near.shape
    return columns[0] / w, rows[0] / h, (columns[-1] + 1) / w, (rows[-1] + 1) / h


SHAPES = [
    ("square", (500, 500)),
    ("photo", (1600, 1200)),
    ("wide", (3000, 150)),
    ("tall", (120, 2400)),
    ("small", (140, 140)),
    ("12 megapixels", (4000, 3000)),
]
BOX = (0.25, 0.3, 0.75, 0.8)


@pytest.mark.parametrize("size", [row[1] for row in SHAPES], ids=[row[0] for row in SHAPES])
def test_raster_boxes_are_where_they_must_be(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, GREY)
    drawn = overlay_image(image, [GroundedPhrase("", BOX)])
    assert drawn.size == size
    assert image.getpixel((0, 0)) == drawn.getpixel((0, 0)) == GREY
    w, h = size
    strokes = np.abs(np.asarray(drawn).astype(int) - np.array(GREY)).max(axis=2) > 20
    label = round(20 * default_scale(size))  # above the box, or beside it
    assert not strokes[: max(0, int(0.3 * h) - label - 1)].any()
    assert not strokes[round(0.8 * h) + label :].any()
    assert not strokes[:, : round(0.25 * w) - 1].any()
    assert not strokes[:, round(0.75 * w) + label :].any()
    row = np.asarray(drawn)[round(0.8 * h) - 1 - round(default_scale(size)), :].astype(int)
    at = np.flatnonzero(np.abs(row - ORANGE).max(axis=1) <= 10)
    casing = 1 + default_scale(size)
    assert 0 <= at[0] - 0.25 * w <= casing
    assert -casing <= at[-1] + 1 - 0.75 * w <= label


@pytest.mark.parametrize("size", [row[1] for row in SHAPES], ids=[row[0] for row in SHAPES])
def test_figure_boxes_are_where_they_must_be(tmp_path: Path, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, GREY)
    path = prediction(image, GroundedPhrase("", BOX)).save(tmp_path / "x.png", legend=False)
    with Image.open(path) as saved:
        found = orange_extent(saved, 80)
        pixels = saved.size
    label = 22  # above the box, or to its right where there is no room
    for found_edge, edge, length, room in (
        (found[0], BOX[0], pixels[0], 0),
        (-found[1], -BOX[1], pixels[1], label),
        (found[2], BOX[2], pixels[0], label),
        (found[3], BOX[3], pixels[1], 0),
    ):
        assert -3 <= (found_edge - edge) * length <= 3 + room


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_boxes_lie_over_the_object_of_a_rotated_photo(orientation: int) -> None:
    upright = Image.new("RGB", (600, 400), GREY)
    upright.paste((10, 10, 200), (60, 80, 240, 320))
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    upright.transpose(turn[orientation]).save(stream, "JPEG", exif=exif, quality=95)
    loaded = sources.load(stream)
    drawn = np.asarray(overlay_image(loaded, [GroundedPhrase("", (0.1, 0.2, 0.4, 0.8))])).astype(int)
    inside = drawn[90:310, 70:230]
    assert np.abs(inside - np.array((10, 10, 200))).max(axis=2).mean() < 15, "the object fills the box"
    outside = np.delete(drawn, np.s_[55:345], axis=0)
    assert np.abs(outside - np.array(GREY)).max(axis=2).mean() < 5
    row = drawn[200]
    at = np.flatnonzero(np.abs(row - ORANGE).max(axis=1) <= 10)
    assert abs(at[0] - 60) <= 3
    assert abs(at[-1] - 240) <= 3


def test_strokes_have_casing_and_grow_with_the_image() -> None:
    for size in ((640, 640), (3200, 3200)):
        row = np.asarray(overlay_image(Image.new("RGB", size, GREY), [GroundedPhrase("", BOX)]))[size[1] // 2]
        orange = (np.abs(row.astype(int) - ORANGE).max(axis=1) <= 5).sum()
        assert orange == 2 * 2 * size[0] // 640
        dark = (row.max(axis=1) < 40).sum()
        assert dark >= 4


def test_the_callers_image_is_not_drawn_on() -> None:
    image = Image.new("RGB", (64, 64), GREY)
    overlay_image(image, [GroundedPhrase("x", (0, 0, 1, 1))])
    assert image.getcolors() == [(64 * 64, GREY)]


def test_eighth_phrase_is_dashed() -> None:
    image = Image.new("RGB", (800, 800), GREY)
    phrases = [GroundedPhrase(f"p{i}", (0.9, 0.9, 0.95, 0.95)) for i in range(7)]
    drawn = np.asarray(overlay_image(image, [*phrases, GroundedPhrase("p8", (0.1, 0.2, 0.6, 0.7))])).astype(
        int
    )
    left = drawn[180:540, 82]
    orange = np.abs(left - ORANGE).max(axis=1) <= 10
    assert 0.3 < orange.mean() < 0.7


def test_points_are_markers() -> None:
    image = Image.new("RGB", (640, 480), GREY)
    point = GroundedPhrase("p", (0.5, 0.5, 0.5, 0.5), point=(0.5, 0.5))
    drawn = overlay_image(image, [point])
    assert np.abs(np.array(drawn.getpixel((320, 240))) - ORANGE).max() <= 5
    assert drawn.getpixel((320, 260)) == GREY
    assert prediction_figure(prediction(image, point)).axes[0].patches


HOSTILE = [
    "<script>alert(1)</script>",
    "$\\foo$",
    "$$",
    "a\x00\x07\x1b[31mb",
    "\u202eright to left override",
    "\ud800 a lone surrogate",
    "猫 と 犬",
    "שלום עולם",
    "مرحبا بالعالم",
    "हिन्दी",
    "👩‍👩‍👧 😀 🏳️‍🌈",
    "\U0001f9ff\U000e0041",
    "x" * 100_000,
    "",
]


@pytest.mark.parametrize("text", HOSTILE, ids=[str(i) for i in range(len(HOSTILE))])
def test_any_text_can_be_drawn_without_a_warning(tmp_path: Path, text: str) -> None:
    image = Image.new("RGB", (320, 240), GREY)
    phrases = [GroundedPhrase(text, BOX)] * 2 + [GroundedPhrase(f"{text}{i}", BOX) for i in range(8)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        overlay_image(image, phrases)
        prediction(image, *phrases, caption=text, prompt=text).save(tmp_path / "x.png", legend=True)
        prediction(image, *phrases, caption=text).save(tmp_path / "x.svg")


def test_figures_leave_pyplot_alone(tmp_path: Path) -> None:
    code = """
import sys
from PIL import Image
from vlm_nb.display import preview_jpeg, prediction_figure
from vlm_nb.results import Prediction
image = Image.new("RGB", (20, 20))
figure = prediction_figure(Prediction("x", preview=preview_jpeg(image), image_size=(20, 20)))
figure.savefig(sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.png")], check=True, timeout=120)


def test_the_users_own_way_to_show_figures_stays(shell: Shell) -> None:
    from matplotlib.figure import Figure

    shell.names["answer"] = prediction(Image.new("RGB", (20, 20)))
    formatters = shell.ip.display_formatter.formatters
    formatters["image/svg+xml"].for_type(Figure, lambda figure: "<svg></svg>")
    shell.cell("figure = answer.figure()")
    assert "image/png" not in shell.ip.display_formatter.format(shell.names["figure"])[0]
    formatters["image/svg+xml"].pop(Figure)
    shell.cell("figure = answer.figure()")
    assert set(shell.ip.display_formatter.format(shell.names["figure"])[0]) == {"text/plain", "image/png"}


def test_display_imports_no_matplotlib_or_numpy() -> None:
    code = """
import sys
from PIL import Image
from vlm_nb import display
from vlm_nb.results import GroundedPhrase, Prediction
box = GroundedPhrase("a thing", (0.1, 0.1, 0.5, 0.5))
image = Image.new("RGB", (20, 20))
display.prediction_bundle(Prediction("x", grounded_phrases=(box,), preview=display.preview_jpeg(image)))
assert not {"matplotlib", "numpy", "torch"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_dpi_and_width_scale_the_figure() -> None:
    answer = prediction(Image.new("RGB", (1600, 800), GREY), GroundedPhrase("a", BOX))
    assert [round(v) for v in answer.figure().get_size_inches() * 100] == [800, 400]
    assert [round(v) for v in answer.figure(width=400).get_size_inches() * 100] == [400, 200]
    assert answer.figure(dpi=200).get_dpi() == 200


def test_no_image_is_one_clear_error() -> None:
    with pytest.raises(SourceError, match="holds no image"):
        Prediction("x").figure()


def noise(size: tuple[int, int] = (4000, 3000)) -> Image.Image:
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.mark.parametrize("limit", [100_000, 20_000, 3_000])
def test_previews_keep_their_size(limit: int) -> None:
    data = preview_jpeg(noise(), limit)
    assert len(data) <= limit
    with Image.open(io.BytesIO(data)) as small:
        assert abs(small.width / small.height - 4 / 3) < 0.05


def test_previews_of_any_mode_and_shape() -> None:
    for image in (Image.new("RGBA", (1, 1)), Image.new("L", (5000, 3)), Image.new("P", (3, 5000))):
        with Image.open(io.BytesIO(preview_jpeg(image))) as small:
            assert max(small.size) <= 1024
            assert min(small.size) >= 1


def test_terminal_overlay_is_a_file() -> None:
    answer = prediction(Image.new("RGB", (200, 100), GREY), GroundedPhrase("a", BOX))
    text = display.terminal_text(answer)
    path = Path(text.rpartition("overlay: ")[2])
    with Image.open(path) as saved:
        assert abs(saved.width / saved.height - 2) < 0.02
    path.unlink()
