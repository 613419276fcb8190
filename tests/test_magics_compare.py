"""``--compare NAME``: two loaded models, side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted import boxes_json, picture
from shell import Shell, shell  # noqa: F401 - a fixture

import vlm_nb
from vlm_nb.comparing import Comparison


@pytest.fixture
def two(shell: Shell, tmp_path: Path) -> Shell:  # noqa: F811
    for name, width in (("wide", 56), ("slim", 28)):
        script = {"Locate": boxes_json((0, 0, width, 84)), "": f"a {name} car"}
        vlm_nb.load(name, engine="scripted", script=script, keep=True)
    picture().save(tmp_path / "a.png")
    picture().save(tmp_path / "b.png")
    shell.names["folder"] = str(tmp_path)
    shell.names["photo"] = str(tmp_path / "a.png")
    return shell


def test_answers_stand_side_by_side(two: Shell):
    ran = two.cell("%%vqa photo --compare wide -o both\nWhat is it?")
    assert isinstance(ran.value, Comparison)
    assert two.names["both"] is ran.value
    assert ran.value.names == ("slim", "wide")
    assert [o.unwrap().caption for o in (ran.value.rows[0].left, ran.value.rows[0].right)] == [
        "a slim car",
        "a wide car",
    ]
    assert "a wide car" in repr(ran.value)


def test_boxes_of_a_folder(two: Shell):
    both = two.cell("%ground folder --compare wide -- red box").value
    assert [row.box_iou for row in both.rows] == pytest.approx([0.5, 0.5])
    assert len(two.cell("%caption photo --compare wide").value.rows) == 1


def test_it_is_reproduced(two: Shell):
    two.cell("%ground photo --compare wide red box")
    code = two.cell("%vlm reproduce").out
    assert "result = model.compare(other, photo, phrase='red box')" in code


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%vqa photo --compare slim What?", "answers already"),
        ("%vqa photo --compare wode What?", "wide"),
        ("%vqa photo --compare wide --chat What?", "single answers"),
        ("%%vqa photo --compare wide\n- one?\n- two?", "single answers"),
    ],
)
def test_what_cannot_be_compared_is_one_line(two: Shell, line: str, words: str):
    assert words in two.fails(line)


def test_two_models_of_one_name_are_told_apart(shell: Shell, tmp_path: Path):  # noqa: F811
    picture().save(tmp_path / "a.png")
    shell.names["photo"] = str(tmp_path / "a.png")
    vlm_nb.load("same", engine="scripted", script="one", keep=True)
    vlm_nb.load("same", engine="scripted", script="two", keep=True, max_pixels=100_000)
    row = shell.cell("%vqa photo --compare same What?").value.rows[0]
    assert {row.left.unwrap().caption, row.right.unwrap().caption} == {"one", "two"}
