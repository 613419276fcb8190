"""Decoding: every format and mode gives an upright RGB image; everything else one clear line."""

from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from vlm_nb import sources
from vlm_nb.errors import ImageTooLarge, SourceError, SourceNotFound
from vlm_nb.sources import content_key, load, load_sized

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tiff", ".tif", ".webp")
CORNERS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def corners(size: tuple[int, int] = (60, 40)) -> Image.Image:
    """Red above left, green above right, blue below left, white below right."""
    w, h = size
    image = Image.new("RGB", size)
    for name, box in {
        "red": (0, 0, w // 2, h // 2),
        "green": (w // 2, 0, w, h // 2),
        "blue": (0, h // 2, w // 2, h),
        "white": (w // 2, h // 2, w, h),
    }.items():
        image.paste(name if name != "green" else (0, 255, 0), box)
    return image


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def assert_upright(image: Image.Image, tolerance: int = 60) -> None:
    assert image.mode == "RGB"
    w, h = image.size
    found = [image.getpixel(p) for p in ((w // 5, h // 5), (w * 4 // 5, h // 5), (w // 5, h * 4 // 5))]
    for pixel, wanted in zip(found, ("red", "green", "blue"), strict=True):
        assert max(abs(a - b) for a, b in zip(pixel, CORNERS[wanted], strict=True)) <= tolerance, (
            wanted,
            found,
        )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    corners().save(path)
    image = load(path)
    assert image.size == (60, 40)
    assert_upright(image)


@pytest.mark.skipif("avif" not in features.get_supported(), reason="this Pillow has no AVIF")
def test_avif() -> None:
    assert_upright(load(saved(corners(), "AVIF")))


_TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def turned(orientation: int, size: tuple[int, int] = (60, 40), kind: str = "JPEG") -> bytes:
    """``corners`` as a camera stores it that notes an orientation."""
    turn = _TURNS[orientation]
    stored = corners(size) if turn is None else corners(size).transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(stored, kind, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(orientation: int, kind: str) -> None:
    loaded = load_sized(turned(orientation, kind=kind))
    assert loaded.image.size == loaded.original_size == (60, 40)
    assert_upright(loaded.image)


@pytest.mark.parametrize("orientation", [1, 6])
def test_fit_decodes_smaller_and_knows_the_original(orientation: int) -> None:
    loaded = load_sized(turned(orientation, (1600, 800)), fit=(300, 150))
    assert loaded.original_size == (1600, 800)
    assert loaded.image.size == (400, 200)
    assert_upright(loaded.image)


@pytest.mark.parametrize("fit", [(5000, 10), (1600, 800), (900, 450)])
def test_fit_never_goes_below(fit: tuple[int, int]) -> None:
    assert load_sized(turned(1, (1600, 800)), fit=fit).image.size == (1600, 800)


def test_lazy_pil_images_are_turned_too_and_left_alone() -> None:
    with Image.open(io.BytesIO(turned(6))) as mine:
        assert_upright(load(mine))
        assert mine.size == (40, 60)
        assert mine.getexif()[0x0112] == 6
    plain = corners()
    load(plain).putpixel((0, 0), (1, 2, 3))
    assert plain.getpixel((0, 0)) == (255, 0, 0)


def palette(image: Image.Image) -> Image.Image:
    return image.quantize(8)


MODES = [
    ("palette", palette),
    ("RGBA", lambda i: i.convert("RGBA")),
    ("CMYK", lambda i: i.convert("CMYK")),
    ("YCbCr", lambda i: i.convert("YCbCr")),
    ("HSV", lambda i: i.convert("HSV")),
]


@pytest.mark.parametrize("make", [row[1] for row in MODES], ids=[row[0] for row in MODES])
def test_colour_modes(make: Any) -> None:
    assert_upright(load(make(corners())))


def test_cmyk_jpeg() -> None:
    assert_upright(load(saved(corners().convert("CMYK"), "JPEG")))


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16", "I", "F"])
def test_grey_modes(mode: str) -> None:
    levels = np.array([[0, 128, 255]] * 4, np.uint8)
    image = Image.fromarray(levels)
    if mode == "I;16":
        image = Image.fromarray(levels.astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(levels.astype(np.float32) / 255)
    else:
        image = image.convert(mode)
    result = load(image)
    expected = [0, 255 if mode == "1" else 128, 255]
    if mode == "1":
        assert [result.getpixel((x, 0))[0] for x in (0, 2)] == [0, 255]
        return
    assert [result.getpixel((x, 0))[0] for x in range(3)] == expected


def test_sixteen_bit_files_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for name in ("x.png", "x.tif"):
        Image.fromarray(values).save(tmp_path / name)
        grey = np.asarray(load(tmp_path / name))[..., 0]
        assert np.abs(grey.astype(int) - np.arange(256).reshape(16, 16)).max() <= 1


def test_floats_out_of_range_are_stretched() -> None:
    values = np.array([[-5.0, 0.0, 5.0]], np.float32)
    assert [load(Image.fromarray(values)).getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image = clear.convert(mode)
    if mode == "P":
        image = Image.new("P", (4, 4))
        image.info["transparency"] = 0
    assert load(saved(image)).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    red, _, blue = load(data).getpixel((4, 4))
    assert red > 200
    assert blue < 60


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "really_png.jpg"
    path.write_bytes(saved(corners()))
    assert_upright(load(path))


def heic_head() -> bytes:
    return b"\0\0\0\x18ftypheic" + b"\0" * 40


UNREADABLE = [
    ("empty", b"", "an empty file (0 bytes)"),
    ("HTML", b"\n<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
    ("PDF", b"%PDF-1.7 ...", "a PDF"),
    ("JSON", b'{"error": "no"}', "JSON"),
    ("text", b"hello there", "text"),
    ("SVG", b"<svg xmlns='x'></svg>", "an SVG drawing"),
    ("LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    ("binary", bytes(range(256)), "unknown binary data"),
    ("video", b"\0\0\0\x18ftypisom" + b"\0" * 40, "a video"),
    ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
    ("PNG header only", b"\x89PNG\r\n\x1a\n", "PNG"),
    ("truncated JPEG", saved(corners((400, 400)), "JPEG")[:900], "damaged or truncated"),
    ("truncated PNG", saved(Image.effect_noise((90, 90), 90))[:2000], "damaged or truncated"),
    ("corrupt PNG", saved(corners())[:60] + b"\0" * 20, "damaged or truncated"),
]


@pytest.mark.parametrize(
    ("data", "text"), [row[1:] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE]
)
def test_unreadable_content_is_named(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(SourceError) as caught:
        load(path)
    assert text in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.source == str(path)


def test_heic_without_plugin_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(SourceError, match='pip install "pillow-heif>='):
        load(heic_head())


def bomb(width: int, height: int) -> bytes:
    """A PNG of some 100 bytes that claims to be huge."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def test_bombs_are_refused_before_decoding() -> None:
    with pytest.raises(ImageTooLarge, match=r"60000×60000 = 3600 million pixels; the limit is 179 million"):
        load(bomb(60_000, 60_000))
    with pytest.raises(ImageTooLarge, match="max_pixels"):
        load(saved(corners()), max_pixels=100)


def test_large_images_bring_no_warning_and_the_limit_can_be_raised() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    big = saved(Image.new("1", (15_000, 12_500)), "PNG")  # 187 million pixels, over Pillow's own limit
    with pytest.raises(ImageTooLarge):
        load(big)
    loaded = load(saved(Image.new("1", (10_000, 9_500)), "PNG"))
    assert loaded.size == (10_000, 9_500)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_file_that_vanished_is_not_found(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    corners().save(path)
    (item,) = sources.expand(path)
    path.unlink()
    with pytest.raises(SourceNotFound):
        load(item)


def test_a_list_or_folder_is_not_one_image(tmp_path: Path) -> None:
    corners().save(tmp_path / "x.png")
    with pytest.raises(SourceError, match="expected one image, got 1"):
        load(tmp_path)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    st.integers(0, 400),
)
def test_damaged_files_load_or_are_source_errors(kind: str, edits: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(saved(corners((12, 8)), kind))
    for place, value in edits:
        data[place % len(data)] = value
    damaged = bytes(data[: len(data) - cut % len(data)]) if cut > 300 else bytes(data)
    with contextlib.suppress(SourceError):
        assert load(damaged, max_pixels=1_000_000).mode == "RGB"


# Arrays and tensors -----------------------------------------------------------------------------------------

RGB = np.asarray(corners())
ARRAYS = [
    ("H×W×3 uint8", RGB),
    ("channels first", RGB.transpose(2, 0, 1)),
    ("float", RGB / 255.0),
    ("float32", (RGB / 255.0).astype(np.float32)),
    ("uint16", RGB.astype(np.uint16) * 257),
    ("int64", RGB.astype(np.int64)),
    ("with alpha", np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])),
    ("not contiguous", np.asarray(corners((120, 80)))[::2, ::2]),
    ("a float a hair above 1", RGB / 254.9),
]


@pytest.mark.parametrize("array", [row[1] for row in ARRAYS], ids=[row[0] for row in ARRAYS])
def test_arrays(array: Any) -> None:
    image = load(array)
    assert image.size == (60, 40)
    assert_upright(image, 2)


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 1), (1, 40, 60)])
def test_grey_and_bool_arrays(shape: tuple[int, ...]) -> None:
    image = load(np.ones(shape, bool))
    assert image.size == (60, 40)
    assert image.getpixel((1, 1)) == (255, 255, 255)


BAD_ARRAYS = [
    ("0..255 floats", RGB.astype(float), "divide by 255"),
    ("normalised", RGB / 127.5 - 1, "undo its normalisation"),
    ("NaN", np.full((4, 4), np.nan), "nan"),
    ("int out of range", np.full((4, 4), 1000), "expected uint8"),
    ("five channels", np.zeros((7, 7, 5), np.uint8), "array of shape 7×7×5"),
    ("empty", np.zeros((0, 4, 3), np.uint8), "without pixels"),
]


@pytest.mark.parametrize(
    ("array", "text"), [row[1:] for row in BAD_ARRAYS], ids=[row[0] for row in BAD_ARRAYS]
)
def test_bad_arrays(array: Any, text: str) -> None:
    with pytest.raises(SourceError, match=text):
        load(array)


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    hwc = torch.tensor(RGB.copy())
    chw = hwc.permute(2, 0, 1)
    for tensor in (hwc, chw, chw / 255, (chw / 255).bfloat16(), (chw / 255).half().requires_grad_()):
        assert_upright(load(tensor), 4)


def test_no_array_library_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    corners().save(path)
    code = (
        "import sys; from vlm_nb import sources as s; s.load(sys.argv[1]); s.content_key(sys.argv[1]);"
        "assert not {'numpy', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)


# Keys -------------------------------------------------------------------------------------------------------


def test_equal_bytes_have_equal_keys(tmp_path: Path) -> None:
    data = saved(corners())
    path = tmp_path / "x.png"
    path.write_bytes(data)
    uri = sources.to_data_uri(corners())
    assert content_key(path) == content_key(data) == content_key(io.BytesIO(data)) == content_key(uri)
    assert content_key(path).startswith("bytes:")


def different() -> list[Any]:
    """Sources that are pairwise different images."""
    other_palette = palette(corners())
    other_palette.putpalette(bytes(reversed(other_palette.palette.tobytes())))
    lazy = Image.open(io.BytesIO(turned(6)))
    return [
        corners(),
        corners().convert("L"),
        corners((40, 60)),
        palette(corners()),
        other_palette,
        lazy,
        Image.open(io.BytesIO(turned(8))),
        RGB,
        RGB.astype(np.int64),
        RGB.reshape(60, 40, 3),
        saved(corners()),
        saved(corners(), "BMP"),
    ]


def test_different_content_has_different_keys() -> None:
    keys = [content_key(source) for source in different()]
    assert len(set(keys)) == len(keys)


def test_pixel_keys_are_stable() -> None:
    assert content_key(RGB) == content_key(RGB.copy())
    assert content_key(corners()) == content_key(corners())
    assert content_key(RGB).startswith("pixels:")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_data_uris_round_trip(kind: Any) -> None:
    uri = sources.to_data_uri(corners(), kind)
    assert uri.startswith(f"data:image/{kind.lower()};base64,")
    assert_upright(load(uri))
