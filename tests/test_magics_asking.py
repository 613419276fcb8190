"""``%vqa``, ``%ground``, ``%caption`` through a real IPython shell and the scripted engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from shell import Shell, shell

import vlm_nb
from vlm_nb import Prediction

__all__ = ["shell"]
BOXES = '```json\n[{"bbox_2d": [14, 14, 42, 42], "label": "red car"}]\n```'
SCRIPT = {"colour": "It is red.", "dog": "No dog.", "Locate": BOXES, "Describe": "A red square.", "": "ok"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with images in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "my photo.png"):
        Image.new("RGB", (56, 56), "red").save(name)
    (tmp_path / "photos").mkdir()
    for name in ("one.png", "two.png"):
        Image.new("RGB", (56, 56), "blue").save(tmp_path / "photos" / name)
    return tmp_path


@pytest.fixture
def model(shell: Shell, folder: Path) -> vlm_nb.VLM:
    """The scripted engine, as the current model."""
    return vlm_nb.load("scripted", engine="scripted", script=SCRIPT)


def test_a_question_in_the_cell_that_loads_the_extension_is_not_lost_in_silence(shell: Shell) -> None:
    shell.cell("%unload_ext vlm_nb")
    ran = shell.run("%load_ext vlm_nb\nx = 1\n%vqa a.png What colour is the car?")
    assert "in a cell of its own:  %vqa a.png What colour is the car?" in ran.out
    shell.cell("%unload_ext vlm_nb")
    assert shell.cell("%load_ext vlm_nb").out == ""


def test_a_question_on_the_line(shell: Shell, model: vlm_nb.VLM) -> None:
    ran = shell.cell("%vqa a.png What colour is the car?")
    assert isinstance(ran.value, Prediction)
    assert ran.value.caption == "It is red."
    assert ran.value.prompt == "What colour is the car?"
    assert ran.out.count("It is red.") == 1


def test_a_question_in_the_body(shell: Shell, model: vlm_nb.VLM) -> None:
    ran = shell.cell("%%vqa -o kept a.png\nWhat colour\nis it?")
    assert ran.value.prompt == "What colour\nis it?"
    assert shell.names["kept"] is ran.value


def test_an_assignment(shell: Shell, model: vlm_nb.VLM) -> None:
    shell.cell("answer = %vqa a.png What colour is it?")
    assert shell.names["answer"].caption == "It is red."


def test_several_questions_give_a_list(shell: Shell, model: vlm_nb.VLM) -> None:
    ran = shell.cell("%%vqa a.png\n- What colour is it?\n- Is there\n  a dog?")
    assert [answer.caption for answer in ran.value] == ["It is red.", "No dog."]
    assert isinstance(ran.value, list)


def test_ground_with_and_without_a_phrase(shell: Shell, model: vlm_nb.VLM) -> None:
    found = shell.cell("%ground a.png the red car").value
    assert found.grounding == "found"
    assert found.grounded_phrases[0].bbox == pytest.approx((0.25, 0.25, 0.75, 0.75))
    assert "every red car" in found.prompt
    assert "every object" in shell.cell("%ground a.png").value.prompt


def test_ground_of_several_phrases(shell: Shell, model: vlm_nb.VLM) -> None:
    found = shell.cell("%%ground a.png\n- the car\n- the tree").value
    assert ["every car" in found[0].prompt, "every tree" in found[1].prompt] == [True, True]


def test_caption(shell: Shell, model: vlm_nb.VLM) -> None:
    assert shell.cell("%caption a.png").value.caption == "A red square."


@pytest.mark.parametrize(
    "line",
    [
        "%caption a.png b.png",
        "%caption [*['a.png', 'b.png']]",
        "%caption photos",
        "%caption photos/*.png",
        "%caption paths",
        '%caption "photos"',
    ],
)
def test_several_sources_give_a_table(shell: Shell, model: vlm_nb.VLM, line: str) -> None:
    shell.names["paths"] = ["a.png", "b.png"]
    table = shell.cell(line).value
    assert list(table["caption"]) == ["A red square."] * 2


def test_sources_end_at_two_dashes(shell: Shell, model: vlm_nb.VLM) -> None:
    table = shell.cell("%vqa a.png photos -- What colour is it?").value
    assert list(table["caption"]) == ["It is red."] * 3


def test_together_makes_one_prompt(shell: Shell, model: vlm_nb.VLM) -> None:
    answer = shell.cell("%vqa --together a.png b.png -- Which colour?").value
    assert isinstance(answer, Prediction)
    assert answer.source == "a.png, b.png"


def test_several_questions_about_several_images(shell: Shell, model: vlm_nb.VLM) -> None:
    table = shell.cell("%%vqa a.png b.png\n- What colour?\n- A dog?").value
    assert list(table["caption"]) == ["It is red.", "No dog."] * 2
    assert list(table["prompt"]) == ["What colour?", "A dog?"] * 2
