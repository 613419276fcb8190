"""``%vlm reproduce`` prints Python that, run by itself, gives the same answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from shell import Shell, shell

import vlm_nb

__all__ = ["shell"]
BOXES = '```json\n[{"bbox_2d": [14, 14, 42, 42], "label": "car"}]\n```'
SCRIPT = {"colour": "red", "dog": "no dog", "Locate": BOXES, "": "ok"}

CELLS = {
    "a question": "%vqa a.png What colour is 'it'?",
    "a question with options": '%vqa a.png What colour? --system "Be brief." --max_new_tokens 3 --stop END',
    "several questions": "%%vqa a.png\n- What colour?\n- Is there\n  a dog?",
    "a phrase": "%ground a.png the car",
    "every object": "%ground a.png",
    "several phrases": "%%ground a.png\n- the car\n- the dog",
    "a caption": "%caption a.png",
    "a variable": "%vqa images[0] What colour?",
    "an object in braces": "%vqa {{images[0]}} What colour?",
    "a quoted name": "%vqa 'my photo.png' What colour?",
    "a schema": "%vqa a.png What colour? --schema ['red','blue']",
    "a schema alone": "%vqa a.png --schema ['red','ok']",
    "many with a schema": "%vqa images What colour? --schema choices",
    "together": "%vqa --together a.png images -- What colour?",
    "many": "%vqa a.png images -- What colour?",
    "many with several questions": "%%vqa a.png images\n- What colour?\n- A dog?",
    "many captions": "%caption .",
    "many with a phrase": "%ground images the car",
    "many with every object": "%ground images",
    "a table": "%vqa df What colour?",
    "a table, two questions": "%%vqa df\n- What colour?\n- A dog?",
    "a table's captions": "%caption df",
    "a conversation": "%vqa --chat a.png What colour?\n%vqa --chat -- And the dog?",
    "a conversation from an answer": "%ground a.png the car\n%vqa --chat -- Is it a dog?",
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_the_code_gives_the_same(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: str
) -> None:
    pandas = pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "my photo.png"):
        Image.new("RGB", (56, 56), "red").save(name)
    images = ["a.png", "b.png"]
    shell.names.update(choices=["red", "blue"], images=images, df=pandas.DataFrame({"image": images}))
    vlm_nb.load("scripted", engine="scripted", script=SCRIPT, engine_args={"slots": 2})
    first = shell.cell(cell).value
    code = shell.cell("%vlm reproduce").out
    vlm_nb.unload()
    names: dict[str, Any] = {name: shell.names[name] for name in ("images", "df", "choices")}
    exec(code, names)
    assert plain(names["result"]) == plain(first)


def plain(value: Any) -> Any:
    """What of an answer must be the same in a second run."""
    if hasattr(value, "columns"):
        dropped = [name for name in ("seconds",) if name in value.columns]
        return value.drop(columns=dropped).astype(str).to_dict()
    if isinstance(value, list):
        return [plain(item) for item in value]
    found = value.to_dict()
    return {name: found[name] for name in ("caption", "raw", "prompt", "source", "grounded_phrases")}


def test_secrets_are_not_written(shell: Shell, tmp_path: Path) -> None:
    Image.new("RGB", (56, 56)).save(tmp_path / "a.png")
    shell.names["path"] = tmp_path / "a.png"
    vlm_nb.load(
        "scripted", engine="scripted", script=lambda request: "ok", api_key="sk-secret", token="hf_secret"
    )
    shell.cell("%vqa path What?")
    code = shell.cell("%vlm reproduce").out
    assert "secret" not in code
    assert "# and your own script" in code
