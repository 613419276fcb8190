"""A hostile answer is text: in a terminal, in what a kernel sends, in help and error lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import ANSWERS, CONTROL, ESCAPES, MARKUP, RAW
from kernel import Kernel, kernel
from PIL import Image
from shell import Shell, shell

import vlm_nb

__all__ = ["kernel", "shell"]


@pytest.mark.parametrize(
    "magic", ["%vqa {} What?", "%ground {} the car", "%caption {}", "x = %vqa {} What?\nx"]
)
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_terminal_gets_no_control_characters(shell: Shell, tmp_path: Path, answer: str, magic: str) -> None:
    Image.new("RGB", (112, 84)).save(tmp_path / "a.png")
    vlm_nb.load("scripted", engine="scripted", script=answer)
    ran = shell.cell(magic.format(tmp_path / "a.png"))
    assert not any(character in ran.out + ran.err for character in ESCAPES)
    repr_ = repr(shell.names.get("x", ran.value))
    assert not any(character in repr_ for character in ESCAPES)


def test_a_hostile_failure_is_one_clean_line(shell: Shell, tmp_path: Path) -> None:
    Image.new("RGB", (112, 84)).save(tmp_path / "a.png")
    shell.names.update(path=tmp_path / "a.png", failure=RuntimeError(f"{CONTROL}\n{MARKUP}"))
    vlm_nb.load("scripted", engine="scripted", script=shell.names["failure"])
    line = shell.fails("%vqa path What?")
    assert not any(character in line for character in ESCAPES)


def test_a_hostile_name_is_one_clean_line(shell: Shell) -> None:
    shell.names["path"] = f"{CONTROL.replace(chr(0), '')}\n<script>.png"
    line = shell.fails("%vqa path What?")
    assert not any(character in line for character in ESCAPES)


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_page_gets_text(kernel: Kernel, answer: str) -> None:
    kernel.run(f"model = vlm_nb.load('hostile', engine='scripted', script={answer!r})")
    reply = kernel.run("%vqa -o kept a.png What?")
    assert reply.status == "ok"
    shown = [
        content["data"]
        for kind in ("display_data", "update_display_data")
        for content in reply.contents(kind)
    ]
    shown += [kernel.run("kept").contents("execute_result")[0]["data"]]
    for data in shown:
        assert not any(raw in data["text/html"] for raw in RAW)
        assert not any(character in data["text/html"] + data["text/plain"] for character in ESCAPES)
        assert sum(map(len, data.values())) <= 150_000
