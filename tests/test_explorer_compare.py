"""The Explorer comparing two loaded models: both asked, both stopped, kept and exported together."""

from __future__ import annotations

import dataclasses
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comm
import pytest
from explorer_helpers import DummyComm, ask, messages, picture, say, until

import vlm_nb
from vlm_nb.explorer import Explorer, choices, explore
from vlm_nb.explorer.edits import Boxes
from vlm_nb.results import GroundedPhrase


@pytest.fixture(autouse=True)
def dummy_comm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "create_comm", DummyComm)


def replies(shift: float, text: str) -> Any:
    """A model that finds one thing, ``shift`` of the width to the right, and else says ``text``."""

    def reply(request: Any) -> Any:
        asked = request.messages[-1].text
        if "broken" in asked and shift:
            return RuntimeError("boom")
        if "Locate" not in asked:
            return text
        w, h = request.input_sizes[0]
        box = [round(w * (0.25 + shift)), h // 4, round(w * (0.5 + shift)), h // 2]
        return f"```json\n{json.dumps([{'bbox_2d': box, 'label': 'thing'}])}\n```"

    return reply


def load(name: str, shift: float, text: str) -> vlm_nb.VLM:
    return vlm_nb.load(
        name, engine="scripted", script=replies(shift, text), engine_args={"delay": 0.005}, keep=True
    )


@pytest.fixture
def models(fresh_registry: None) -> tuple[vlm_nb.VLM, vlm_nb.VLM]:
    """The second is the current one."""
    return load("right", 0.125, "one two four"), load("left", 0.0, "one two three four")


@pytest.fixture
def x(models: tuple[vlm_nb.VLM, vlm_nb.VLM]) -> Iterator[Explorer]:
    made = explore([picture("red"), picture("blue")])
    yield made
    made.close()


def rival(x: Explorer) -> str:
    (other,) = x.ui_models["rivals"]
    return str(other["id"])


def compare(x: Explorer, prompt: str = "what?", task: str = "ask", **more: Any) -> None:
    ask(x, prompt, task, rival=rival(x), **more)
    until(lambda: x.ui_rival["status"] not in ("waiting", "running"))


def test_both_models_answer_the_same_question_side_by_side(x: Explorer) -> None:
    compare(x, "what is it?")
    assert (x.ui_answer["model"], x.ui_answer["text"]) == ("left", "one two three four")
    assert (x.ui_rival["model"], x.ui_rival["text"]) == ("right", "one two four")
    assert x.ui_rival["number"] == x.ui_answer["number"] == 1
    assert x.ui_rival["verdict"] == "Agreement 0.86 of 1"
    assert x.comparison is not None
    assert x.comparison.names == ("left", "right")
    assert x.comparison.rows[0].agreement == pytest.approx(6 / 7)
    assert [p.model for p in x.predictions] == ["left", "right"]


def test_the_boxes_of_both_are_told_apart_and_paired(x: Explorer) -> None:
    compare(x, "thing", "ground")
    one, other = x.ui_boxes["items"]
    assert (one["side"], other["side"]) == (0, 1)
    assert (one["match"], other["match"]) == (other["id"], one["id"])
    assert one["iou"] == pytest.approx(1 / 3, abs=0.03)
    assert x.ui_rival["verdict"] == f"Mean box IoU {one['iou']:.2f}"


def test_a_region_is_asked_of_both_and_maps_back(x: Explorer) -> None:
    compare(x, "thing", "ground", region=[0.5, 0.0, 1.0, 1.0])
    one, other = x.ui_boxes["items"]
    assert one["bbox"] == pytest.approx([0.625, 0.25, 0.75, 0.5], abs=0.02)
    assert other["bbox"] == pytest.approx([0.6875, 0.25, 0.8125, 0.5], abs=0.02)


def test_a_correction_belongs_to_its_model_and_counts_in_the_agreement(x: Explorer) -> None:
    compare(x, "thing", "ground")
    one, other = x.ui_boxes["items"]
    say(x, "edit", op="change", id=other["id"], bbox=one["bbox"])
    assert x.ui_rival["verdict"] == "Mean box IoU 1.00"
    assert [p.grounded_phrases[0].source for p in x.predictions] == ["model", "human"]
    say(x, "edit", op="delete", id=one["id"])
    assert [len(p.grounded_phrases) for p in x.predictions] == [0, 1]
    for _ in range(2):
        say(x, "edit", op="undo")
    assert x.ui_boxes["items"] == [one, other]


def test_stop_stops_both(models: tuple[vlm_nb.VLM, vlm_nb.VLM], x: Explorer) -> None:
    for model in models:
        model.engine._backend._args["delay"] = 0.1  # type: ignore[attr-defined]
    say(x, "ask", task="ask", prompt="slowly", rival=rival(x))
    until(lambda: x.ui_answer["text"] and x.ui_rival["text"])
    say(x, "stop")
    until(lambda: x.ui_answer["status"] == x.ui_rival["status"] == "stopped")
    assert [p.usage.finish_reason for p in x.predictions] == ["cancelled", "cancelled"]
    compare(x, "again")
    assert [p.usage.finish_reason for p in x.predictions[2:]] == ["stop", "stop"]


def test_one_failure_leaves_the_other_answer(x: Explorer) -> None:
    compare(x, "broken")
    assert x.ui_rival["status"] == "error"
    assert "boom" in x.ui_rival["problem"]["message"]
    assert x.ui_answer["status"] == "done"
    assert x.comparison is None
    assert [p.model for p in x.predictions] == ["left"]
    until(lambda: "one two three four" in x._keepsake._bundle["text/html"])


def test_a_second_ask_waits_for_both(models: tuple[vlm_nb.VLM, vlm_nb.VLM], x: Explorer) -> None:
    models[0].engine._backend._args["delay"] = 0.2  # type: ignore[attr-defined]
    say(x, "ask", task="ask", prompt="a", rival=rival(x))
    until(lambda: x.ui_answer["status"] == "done")
    say(x, "ask", task="ask", prompt="b")
    until(lambda: x.ui_rival["status"] == "done")
    assert [turn["prompt"] for turn in x.ui_history] == ["a"]


def test_a_model_that_is_gone_or_the_same_is_refused_in_words(
    models: tuple[vlm_nb.VLM, vlm_nb.VLM], x: Explorer
) -> None:
    gone = rival(x)
    say(x, "ask", task="ask", prompt="what?", rival=str(id(models[1])))
    until(lambda: x.ui_rival.get("status") == "error")
    assert "compared with itself" in x.ui_rival["problem"]["message"]
    until(lambda: x.ui_answer["status"] == "done")
    vlm_nb.unload(models[0])
    say(x, "ask", task="ask", prompt="what?", rival=gone)
    assert "loaded no more" in x.ui_notice["message"]
    assert len(x.ui_history) == 1


def test_history_recalls_both_answers(x: Explorer) -> None:
    compare(x, "thing", "ground")
    say(x, "go", index=1)
    ask(x, "alone")
    assert x.ui_rival == {}
    assert x.ui_history[0]["models"] == ["left", "right"]
    assert x.ui_history[0]["verdict"].startswith("Mean box IoU 0.3")
    say(x, "recall", number=1)
    assert (x.ui_album["index"], x.ui_answer["model"], x.ui_rival["model"]) == (0, "left", "right")
    assert len(x.ui_boxes["items"]) == 2


def test_results_and_exports_hold_both(x: Explorer, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    compare(x, "thing", "ground")
    ask(x, "alone")
    frame = x.results
    assert list(frame["model"]) == ["left", "right", "left"]
    assert list(frame["turn"]) == [1, 1, 2]
    assert frame["agreement"][0] == frame["agreement"][1] == pytest.approx(1 / 3, abs=0.03)
    assert pd.isna(frame["agreement"][2])
    for kind in ("json", "csv", "html"):
        say(x, "export", format=kind)
    files = {m["name"]: bytes(m["buffers"][0]).decode() for m in messages(x, "file")}
    rows = [json.loads(line) for line in files["answers.jsonl"].splitlines()]
    assert [(row["turn"], row["model"]) for row in rows] == [(1, "left"), (1, "right"), (2, "left")]
    table = pd.read_csv(io.StringIO(files["answers.csv"]))
    assert list(table["turn"]) == [1, 1, 2]
    assert list(table["agreement"][:2]) == pytest.approx(list(frame["agreement"][:2]))
    page = x.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert page == files["answers.html"]
    assert page.count("<article>") == 2
    assert page.count("data:image/jpeg;base64,") == 2
    assert "A thing" in page
    assert "B thing" in page
    assert [c.names for c in x.comparisons] == [("left", "right")]


def test_the_saved_notebook_holds_one_image_and_both_answers(x: Explorer) -> None:
    compare(x, "what is it?")
    until(lambda: "one two four" in x._keepsake._bundle["text/html"])
    page = x._keepsake._bundle["text/html"]
    assert "one two three four" in page
    assert page.count("data:image/jpeg;base64,") == 1
    assert len(json.dumps(page)) <= 200_000


def test_loaded_models_are_told_apart_and_taken_into_use(x: Explorer) -> None:
    assert x.ui_models["current"]["name"] == "left"
    say(x, "load", model="right", precision="auto", device="auto")
    assert x.ui_models["current"]["name"] == "right"
    assert [one["label"] for one in x.ui_models["rivals"]] == ["left"]
    assert len(vlm_nb.loaded()) == 2
    twin = vlm_nb.load("left", engine="scripted", script="x", quantization="4bit", keep=True)
    assert choices.labels(vlm_nb.loaded()) == ["right", "left (cpu)", "left (4bit)"]
    assert twin in vlm_nb.loaded()


def test_a_model_is_loaded_beside_the_others_on_request(fresh_registry: None) -> None:
    x = explore([picture()], engine="scripted", script="ok")
    for name, keep in (("one", False), ("two", True), ("three", False)):
        say(x, "load", model=name, keep=keep)
        until(lambda name=name: (x.ui_models["current"] or {}).get("name") == name)  # type: ignore[misc]
    assert [model.name for model in vlm_nb.loaded()] == ["three"]
    x.close()
    assert vlm_nb.loaded() == []


def test_a_later_models_boxes_are_no_gesture_to_undo() -> None:
    thing = GroundedPhrase("thing", (0.1, 0.1, 0.2, 0.2))
    boxes = Boxes().joined([thing], 1).apply({"op": "delete", "id": 1}).joined([thing], 0)
    assert [(box.id, box.side) for box in boxes.now] == [(2, 0)]
    back = boxes.apply({"op": "undo"})
    assert [(box.id, box.side) for box in back.now] == [(2, 0), (1, 1)]
    assert back.apply({"op": "undo"}) is back


def test_both_are_asked_at_the_same_time(models: tuple[vlm_nb.VLM, vlm_nb.VLM], x: Explorer) -> None:
    gate, open_ = threading.Event(), []

    def slow(request: Any) -> str:
        open_.append(threading.current_thread().name)
        if len(open_) == 2:
            gate.set()
        assert gate.wait(20), "the second was not asked while the first was answering"
        return "ok"

    for model in models:
        backend: Any = model.engine._backend
        backend._spec = dataclasses.replace(backend._spec, script=slow)
    compare(x)
    assert x.ui_answer["status"] == x.ui_rival["status"] == "done"
