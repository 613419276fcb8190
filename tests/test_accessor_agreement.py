"""``df.vlm.agreement``: the rows worth a look come first."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from scripted import boxes_json, picture, scripted

import vlm_nb  # noqa: F401 - registers df.vlm
from vlm_nb.errors import OptionError


def cell(*corners: float) -> list[dict[str, object]]:
    return [{"phrase": "car", "bbox": list(corners)}]


def test_texts_are_ranked_and_the_frame_stays():
    df = pd.DataFrame(
        {
            "image": list("abcde"),
            "one": ["x y", "x y", None, None, "x y"],
            "two": ["x y", "x z", "x", None, "q"],
        },
        index=[3, 3, 1, 0, 2],
    )
    out = df.vlm.agreement("one", "two")
    assert out["image"].tolist() == ["c", "e", "b", "a", "d"]
    assert out["agreement"].tolist()[:4] == [0.0, 0.0, 0.5, 1.0]
    assert out["agreement"].isna().tolist() == [False] * 4 + [True]
    assert out.index.tolist() == [1, 2, 3, 3, 0]
    assert "agreement" not in df.columns


def test_boxes_are_ranked():
    df = pd.DataFrame({"a": [cell(0, 0, 1, 1), [], []], "b": [cell(0, 0, 1, 0.5), [], cell(0, 0, 1, 1)]})
    out = df.vlm.agreement("a", "b", name="same")
    assert out["same"].tolist() == [0.0, 0.5, 1.0]
    assert out.index.tolist() == [2, 0, 1]


def test_two_models_are_asked(tmp_path: Path):
    for name in "ab":
        picture().save(tmp_path / f"{name}.png")
    df = pd.DataFrame({"image": [str(tmp_path / f"{name}.png") for name in ("a", "b", "gone")]})
    wide = scripted({"Locate": boxes_json((0, 0, 56, 84)), "": "yes"})
    slim = scripted({"Locate": boxes_json((0, 0, 28, 84)), "": "no"})
    told = df.vlm.agreement(models=(wide, slim), question="Is it red?", show_progress=False)
    assert told["agreement"].tolist()[:2] == [0.0, 0.0]
    assert told[["left", "right"]].iloc[0].tolist() == ["yes", "no"]
    found = df.vlm.agreement("w", "s", models=(wide, slim), phrase="red box", show_progress=False)
    assert found["agreement"].tolist()[:2] == pytest.approx([0.5, 0.5])
    assert found["w_error"].notna().tolist() == [False, False, True]
    wide.unload()
    slim.unload()


def test_wrong_calls_are_told():
    df = pd.DataFrame({"a": ["x"], "b": ["y"]})
    with pytest.raises(OptionError, match="'c'"):
        df.vlm.agreement("a", "c")
    with pytest.raises(OptionError, match="two loaded models"):
        df.vlm.agreement(models=("one",), question="What?")
