"""What users give as a source → one entry per image, in order, errors in their places."""

from __future__ import annotations

import base64
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlm_nb import sources
from vlm_nb.errors import SourceError, SourceNotFound
from vlm_nb.sources import Source, expand, is_single


def png(size: tuple[int, int] = (4, 3), colour: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """b.png, a.JPG, notes.txt, .hidden.png, sub/c.webp, sub/.git/d.png"""
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "sub/c.webp", "sub/.git/d.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())
    return tmp_path / "photos"


def names(items: list[Source | SourceError]) -> list[str]:
    return [Path(item.label).name if isinstance(item, Source) else type(item).__name__ for item in items]


def test_a_folder_expands_in_sorted_order(folder: Path) -> None:
    assert names(expand(folder)) == ["a.JPG", "b.png"]
    assert names(expand(f"{folder}/")) == ["a.JPG", "b.png"]


def test_recursive_reads_subfolders_but_not_hidden_ones(folder: Path) -> None:
    assert names(expand(folder, recursive=True)) == ["a.JPG", "b.png", "c.webp"]


def test_every_documented_suffix_is_found(tmp_path: Path) -> None:
    wanted = [
        f"x{suffix}" for suffix in ([".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"])
    ]
    for name in wanted:
        (tmp_path / name).touch()
    assert names(expand(tmp_path)) == wanted


def test_a_mixed_list_keeps_order_duplicates_and_errors(folder: Path) -> None:
    items = expand([folder / "b.png", "nope.jpg", folder, png(), folder / "b.png", None])
    kinds = ["b.png", "SourceNotFound", "a.JPG", "b.png", f"bytes ({len(png())} B)", "b.png", "SourceError"]
    assert names(items) == kinds
    errors = {item.index: item.source for item in items if isinstance(item, SourceError)}
    assert errors == {1: "nope.jpg", 6: "None"}


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.png").write_bytes(png())
    (item,) = expand("~/x.png")
    assert isinstance(item, Source)
    assert item.payload == tmp_path / "x.png"


def test_glob_sorted(folder: Path) -> None:
    assert names(expand(f"{folder}/*.[pJ]*")) == ["a.JPG", "b.png"]
    assert names(expand(f"{folder}/*")) == ["a.JPG", "b.png"], "a bare star means the images"
    assert names(expand(f"{folder}/**/*.webp")) == ["c.webp"]
    assert names(expand(f"{folder}/*.txt")) == ["notes.txt"], "a spelled suffix means itself"


def test_an_existing_file_wins_before_a_glob(tmp_path: Path) -> None:
    (tmp_path / "a[1].jpg").write_bytes(png())
    (tmp_path / "a1.jpg").write_bytes(png())
    assert names(expand(tmp_path / "a[1].jpg")) == ["a[1].jpg"]
    assert is_single(tmp_path / "a[1].jpg")
    (tmp_path / "a[1].jpg").unlink()
    assert names(expand(tmp_path / "a[1].jpg")) == ["a1.jpg"]


HERE = Path(__file__)
SINGLE = [
    ("a file", HERE, True),
    ("a file that is not there", "nope/nothing.jpg", True),
    ("a folder", HERE.parent, False),
    ("a glob", "nope/*.jpg", False),
    ("a URL with a question mark", "https://example.org/a.jpg?x=[1]", True),
    ("a data URI", "data:image/png;base64,AAAA", True),
    ("bytes", b"x", True),
    ("an image", Image.new("L", (1, 1)), True),
    ("an array", np.zeros((4, 4, 3), np.uint8), True),
    ("a batch of arrays", np.zeros((2, 4, 4, 3), np.uint8), False),
    ("a list", ["a.jpg"], False),
    ("a tuple", (b"x",), False),
    ("a file object", io.BytesIO(b"x"), True),
    ("a Hugging Face image", {"bytes": b"x", "path": None}, True),
    ("a name too long for a file", "a" * 5000, True),
    ("a null character", "a\0b", True),
    ("nothing", None, True),
]


@pytest.mark.parametrize(("source", "single"), [row[1:] for row in SINGLE], ids=[row[0] for row in SINGLE])
def test_is_single(source: Any, single: bool) -> None:
    assert is_single(source) is single


BAD = [
    ("no such file", "nope.jpg", SourceNotFound, "no such file: nope.jpg."),
    ("an absolute path", "/nope.jpg", SourceNotFound, "no such file: /nope.jpg."),
    ("a sample", "shapes.png", SourceNotFound, "with:  import vlm_nb; vlm_nb.demo.copy_images()"),
    ("no folder either", "nope/nope.jpg", SourceNotFound, "its folder nope does not exist"),
    ("no match", "nope*.jpg", SourceNotFound, "no file matches nope*.jpg"),
    ("a file URL", "file:///etc/hostname", SourceError, "give the path itself"),
    ("another scheme", "s3://bucket/key.png", SourceError, "download it"),
    ("a name too long", "a" * 5000, SourceError, "cannot be a path"),
    ("a null character", "a\0b", SourceError, "cannot be a path"),
    ("an empty text", "", SourceError, "cannot be a path"),
    ("null", None, SourceError, "no image in None"),
    ("NaN", float("nan"), SourceError, "no image in float 'nan'"),
    ("a dict without image", {"x": 1}, SourceError, "expected 'bytes' or 'path'"),
    ("broken base64", "data:image/png;base64,A!A", SourceError, "base64 cannot be decoded"),
    ("a data URI without data", "data:image/png;base64", SourceError, "without a comma"),
    ("a text file object", io.StringIO("x"), SourceError, "mode 'rb'"),
    ("a device", "/dev/null", SourceError, "neither a file nor a folder"),
]


@pytest.mark.parametrize(("source", "kind", "text"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_sources_are_errors_in_one_line(source: Any, kind: type[SourceError], text: str) -> None:
    (item,) = expand(source)
    assert type(item) is kind
    assert text in str(item)
    assert "\n" not in str(item)
    assert item.index == 0
    with pytest.raises(kind, match=r".") as caught:
        sources.load(source)
    assert caught.value.index is None


def test_a_missing_file_is_a_file_not_found_error_that_suggests(folder: Path) -> None:
    (item,) = expand(folder / "b.pmg")
    assert isinstance(item, FileNotFoundError)
    assert "did you mean" in str(item)
    assert "b.png" in str(item)


def test_a_forbidden_path_is_an_error_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", refuse)
    (item,) = expand([tmp_path / "secret" / "x.png"])
    assert isinstance(item, SourceError)
    assert "permission denied" in str(item)


def test_empty_folders_say_what_would_help(tmp_path: Path) -> None:
    (item,) = expand(tmp_path)
    assert isinstance(item, SourceNotFound)
    assert "no images" in str(item)
    assert "recursive" not in str(item)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.png").touch()
    (item,) = expand(tmp_path)
    assert "recursive=True" in str(item)


LABELS = [
    ("PIL image 640×480", Image.new("RGB", (640, 480))),
    ("array 480×640×3", np.zeros((480, 640, 3), np.uint8)),
    ("bytes (3 B)", b"abc"),
    ("data URI (image/png, 3 B)", "data:image/png;base64," + base64.b64encode(b"abc").decode()),
    ("https://example.org:8443/a/b.png?…", "https://user:secret@example.org:8443/a/b.png?token=secret#frag"),
    ("BytesIO object", io.BytesIO(b"abc")),
    ("cat.png", {"bytes": b"abc", "path": "cat.png"}),
]


@pytest.mark.parametrize(("label", "source"), LABELS, ids=[row[0] for row in LABELS])
def test_labels_hold_no_secret(label: str, source: Any) -> None:
    (item,) = expand(source)
    assert isinstance(item, Source)
    assert item.label == label
    assert "secret" not in repr(item)


def test_file_objects_are_read_from_their_start(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png((5, 6)))
    with path.open("rb") as stream:
        stream.read(10)
        (item,) = expand(stream)
    assert isinstance(item, Source)
    assert sources.load(item).size == (5, 6), "it can be loaded after its file is closed"


def test_batches_give_one_entry_each() -> None:
    assert names(expand(np.zeros((3, 8, 8, 3), np.uint8))) == ["array 8×8×3"] * 3


def test_sources_can_be_sent_to_other_processes() -> None:
    (item,) = expand(png())
    assert isinstance(item, Source)
    assert pickle.loads(pickle.dumps(item)).payload == item.payload


def test_one_dimensional_bytes_are_an_encoded_image() -> None:
    (item,) = expand(np.frombuffer(png((5, 6)), np.uint8))
    assert isinstance(item, Source)
    assert item.kind == "bytes"
    assert sources.load(item).size == (5, 6)
    with pytest.raises(SourceError, match="array of shape 3"):
        sources.load(np.arange(3.0))


def test_an_array_of_paths_is_a_list() -> None:
    assert names(expand(np.array(["nope.png", "nope.jpg"]))) == ["SourceNotFound"] * 2


def test_a_series_is_a_list() -> None:
    pandas = pytest.importorskip("pandas")
    assert names(expand(pandas.Series(["nope.png", None]))) == ["SourceNotFound", "SourceError"]
