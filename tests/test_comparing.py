"""Two models side by side: pure matching, errors in their own rows, escaping, and 16 bit against NF4."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from hostile import ANSWERS, RAW
from scripted import boxes_json, picture, scripted

from vlm_nb import batch
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.errors import Cancelled, ModelUnloaded, OptionError
from vlm_nb.likeness import Pair, agreement, box_iou, iou, match, text_likeness
from vlm_nb.opening import open_model
from vlm_nb.results import GroundedPhrase, Prediction


def box(x0: float, y0: float, x1: float, y1: float, phrase: str = "a", image: int = 0) -> GroundedPhrase:
    return GroundedPhrase(phrase, (x0, y0, x1, y1), image_index=image)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 0, 1, 1), (0, 0, 1, 1), 1.0),
        ((0, 0, 0.5, 1), (0.5, 0, 1, 1), 0.0),
        ((0, 0, 0.5, 1), (0.25, 0, 0.75, 1), 1 / 3),
        ((0, 0, 1, 1), (0, 0, 0.5, 0.5), 0.25),
        ((0.3, 0.3, 0.3, 0.3), (0.3, 0.3, 0.3, 0.3), 1.0),
        ((0.3, 0.3, 0.3, 0.3), (0.4, 0.3, 0.4, 0.3), 0.0),
        ((0, 0, 1, 1), (0.3, 0.3, 0.3, 0.3), 0.0),
    ],
    ids=["same", "side by side", "half", "inside", "same point", "other point", "point in a box"],
)
def test_iou(one, other, expected):
    assert iou(one, other) == pytest.approx(expected)
    assert iou(other, one) == pytest.approx(expected)


def test_the_best_pair_is_taken_first_and_each_box_once():
    left = [box(0, 0, 0.4, 1), box(0.1, 0, 0.5, 1)]
    right = [box(0.1, 0, 0.5, 1)]
    assert match(left, right) == [Pair(1, 0, 1.0), Pair(0, None, 0.0)]
    assert box_iou(left, right) == 0.5


def test_another_phrase_or_image_is_another_thing():
    assert box_iou([box(0, 0, 1, 1, "a  Car")], [box(0, 0, 1, 1, "A car")]) == 1.0
    assert box_iou([box(0, 0, 1, 1, "car")], [box(0, 0, 1, 1, "cat")]) == 0.0
    assert box_iou([box(0, 0, 1, 1)], [box(0, 0, 1, 1, image=1)]) == 0.0
    assert box_iou([], []) is None


def test_agreement_of_two_answers():
    assert text_likeness("A red car", "a red  car") == 1.0
    assert text_likeness("", "") == 1.0
    assert text_likeness("yes", "no") == 0.0
    assert agreement(Prediction("two dogs"), Prediction("two cats")) == 0.5
    found = Prediction("", grounding="found", grounded_phrases=(box(0, 0, 1, 1),))
    assert agreement(found, Prediction("", grounding="none")) == 0.0
    assert agreement(Prediction("", grounding="none"), Prediction("", grounding="none")) == 1.0
    assert agreement(found, found) == 1.0


def test_rows_side_by_side_with_errors_in_their_own(tmp_path: Path):
    pandas = pytest.importorskip("pandas")
    picture().save(tmp_path / "a.png")
    left = scripted(boxes_json((0, 0, 56, 84)), name="left")
    right = scripted(boxes_json((0, 0, 28, 84)), name="right")
    both = left.compare(right, [tmp_path / "a.png", tmp_path / "gone.png"], phrase="red box")
    assert both.names == ("left", "right")
    assert both.rows[0].box_iou == pytest.approx(0.5)
    assert both.rows[1].agreement is None
    assert isinstance(both.rows[1].left.error, FileNotFoundError)
    assert both.summary | {"box_iou": 0, "agreement": 0} == {
        "rows": 2,
        "failed": 1,
        "same_text": 0,
        "box_iou": 0,
        "agreement": 0,
    }
    frame = both.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["right_error"].notna().tolist() == [False, True]
    assert len(frame["left_boxes"][0]) == 1
    assert "gone.png" in repr(both)
    left.unload()
    with pytest.raises(ModelUnloaded, match="keep=True"):
        right.compare(left, picture())
    right.unload()


def test_stop_is_for_both_models(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batch, "in_ipython", lambda: True)
    asked, images = [], [picture(box=(n, 10, n + 2, 60)) for n in range(100)] * 2
    left = scripted("left", delay=0.05)
    right = scripted(lambda request: asked.append(request) or "right")
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.warns(UserWarning, match="interrupted: ") as seen:
        both = left.compare(right, images, "what", show_progress=False, ledger=False)
    assert len(seen) == 1
    assert len(both.rows) == both.summary["failed"] == len(images)
    assert isinstance(both.rows[0].right.error, Cancelled)
    assert not asked
    left.unload()
    right.unload()


def test_wrong_calls_are_told():
    one, other = scripted("x"), scripted("y")
    with pytest.raises(OptionError, match="itself"):
        one.compare(one, picture(), "what")
    with pytest.raises(OptionError, match="not both"):
        one.compare(other, picture(), "what", phrase="car")
    with pytest.raises(OptionError, match="max_new_tokens"):
        one.compare(other, picture(), "what", max_new_token=3)
    one.unload()
    other.unload()


def test_model_text_and_file_names_are_escaped(tmp_path: Path):
    one, other = scripted(ANSWERS["markup"], name="<img src=x>"), scripted("fine", name="other")
    page = one.compare(other, [picture()], "<b>what</b>", ledger=False)._repr_mimebundle_()["text/html"]
    assert not any(raw in page for raw in RAW)
    assert "<img" not in page
    assert "<b>what" not in page
    one.unload()
    other.unload()


def test_many_rows_stay_small():
    one, other = scripted("word " * 3000), scripted("other " * 3000)
    both = one.compare(other, [picture()] * 120, "what", max_new_tokens=2000, ledger=False)
    page = both._repr_mimebundle_()["text/html"]
    assert len(page) < 600_000
    assert "more in .rows" in page
    assert both.rows[0].agreement == 0.0
    one.unload()
    other.unload()


def test_4_bit_against_16_bit_on_the_demo_model(tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    from vlm_nb.demo.scenes import draw_scene

    for seed in range(6):
        draw_scene((1 << 41) + seed, size=None).image.save(tmp_path / f"{seed}.png")
    whole = open_model(LoadSpec(model="demo", dtype="bfloat16"))
    small = open_model(LoadSpec(model="demo", dtype="bfloat16", quantization="4bit"))
    boxes = whole.compare(small, tmp_path, show_progress=False)
    assert boxes.names == ("demo (bfloat16)", "demo (4bit)")
    assert boxes.summary["rows"] == 6
    assert boxes.summary["failed"] == 0
    assert 0.3 < boxes.summary["box_iou"] <= 1.0
    counts = whole.compare(small, tmp_path, "How many objects are there?", show_progress=False)
    assert counts.summary["same_text"] >= 4
    assert "mean box IoU" in repr(boxes)
    whole.unload()
    small.unload()
