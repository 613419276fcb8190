"""Completion through IPython's own completer, as a front end asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from IPython.core.completer import provisionalcompleter
from PIL import Image
from shell import Shell, shell

import vlm_nb

__all__ = ["shell"]


@pytest.fixture
def here(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, a text file and folders; variables; two loaded models; a cached one."""
    monkeypatch.chdir(tmp_path)
    for name in ("picture.png", "Photo.JPG", "my photo.png"):
        Image.new("RGB", (8, 8)).save(name)
    Path("notes.txt").write_text("x")
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save("photos/inner.png")
    shell.names.update(poster=Image.new("RGB", (8, 8)), posters=[Image.new("RGB", (8, 8))], pole=3, text="x")
    for name in ("tiny", "other"):
        vlm_nb.load(name, engine="scripted", keep=True)
    cache = tmp_path / "cache"
    (cache / "models--Qwen--VL" / "snapshots" / "a").mkdir(parents=True)
    (cache / "models--Qwen--VL" / "snapshots" / "a" / "config.json").write_text(
        '{"model_type": "qwen2_5_vl"}'
    )
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("vlm_nb.magics.completion._seen", (0.0, []))
    return tmp_path


def complete(shell: Shell, text: str) -> list[str]:
    """The cell's text after each completion at its end; ``|`` marks the cursor if it is not the end."""
    cursor = text.index("|") if "|" in text else len(text)
    text = text.replace("|", "")
    with provisionalcompleter():
        found = list(shell.ip.Completer.completions(text, cursor))
    return [text[: one.start] + one.text + text[one.end :] for one in found]


FILES = ['"my photo.png"', "Photo.JPG", "photos/", "picture.png", "poster", "posters"]
TABLE: dict[str, tuple[str, list[str]]] = {
    "sources": ("%vqa p", ["Photo.JPG", "photos/", "picture.png", "poster", "posters"]),
    "a folder's images": ("%vqa photos/", ["photos/deep/", "photos/inner.png"]),
    "in quotes": ('%vqa "my', ['"my photo.png"']),
    "after an assignment": ("x = %ground pic", ["picture.png"]),
    "on a cell magic": ("%%vqa pic|\nWhat?", ["picture.png"]),
    "after an option": ("%vqa -o x pic", ["picture.png"]),
    "a second source of caption": ("%caption picture.png Pho", ["Photo.JPG", "photos/"]),
    "options": ("%vqa picture.png What? --te", ["--temperature"]),
    "options of chat": ("%vqa --ch", ["--chat"]),
    "short options": ("%vqa -", ["-o"]),
    "models after --model": ("%vqa --model ", ["other", "tiny"]),
    "braces": ("%vqa picture.png Is it {{po", ["{{pole", "{{poster", "{{posters"]),
    "braces in a body": ("%%vqa picture.png\nIs it {{te", ["{{text"]),
    "commands": ("%vlm lo", ["load"]),
    "commands by themselves": ("%vlm re", ["reproduce"]),
    "models to load": ("%vlm load ", ["cache/", "demo", "other", "photos/", "Qwen/VL", "tiny"]),
    "a cached model": ("%vlm load qw", ["Qwen/VL"]),
    "load's options": ("%vlm load tiny --load_in_4", ["--load_in_4bit"]),
    "quantisations": ("%vlm load tiny --quantization ", ["4bit", "8bit"]),
    "loaded models": ("%vlm use ", ["other", "tiny"]),
    "loaded models to unload": ("%vlm unload t", ["tiny"]),
    "settings": ("%vlm config max", ["max_new_tokens", "max_pixels"]),
}


@pytest.mark.parametrize(("text", "found"), TABLE.values(), ids=TABLE)
def test_completions(shell: Shell, here: Path, text: str, found: list[str]) -> None:
    offered = complete(shell, text)
    cursor = text.index("|") if "|" in text else len(text)
    before = text[:cursor]
    word = before[before.rfind('"') :] if '"' in before else before.rsplit(None, 1)[-1]
    word = "" if before.endswith(" ") else word
    start = before[: len(before) - len(word)]
    ends = [one[len(start) : len(one) - len(text.replace("|", "")[cursor:]) or None] for one in offered]
    if text == "%vqa -":
        assert ends[0] == "-o" or "-o" in ends
        assert "--temperature" in ends
    elif text.endswith(("load ", "--model ", "use ", "--quantization ")):
        assert [end for end in ends if not end.startswith("-")] == found
    else:
        assert ends == found


def test_an_empty_source_offers_images_variables_and_options(shell: Shell, here: Path) -> None:
    ends = [one.removeprefix("%vqa ") for one in complete(shell, "%vqa ")]
    assert [end for end in ends if not end.startswith("-")] == ['"my photo.png"', "cache/", *FILES[1:]]
    assert "--system" in ends


def test_other_lines_complete_as_ever(shell: Shell, here: Path) -> None:
    assert "import os" in complete(shell, "import o")
    assert complete(shell, "%vq") == ["%vqa", "%%vqa"]
    assert any("poster" in one for one in complete(shell, "post"))
    assert any("poster" in one for one in complete(shell, "%vqa picture.png What?\npost"))


def test_it_is_quick(shell: Shell, here: Path) -> None:
    import time

    complete(shell, "%vlm load ")
    started = time.perf_counter()
    complete(shell, "%vqa p")
    assert time.perf_counter() - started < 1.0
