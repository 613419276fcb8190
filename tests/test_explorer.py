"""The Explorer without a browser: the real model thread, a comm that only writes down what is sent."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comm
import pytest
from explorer_helpers import SIZE, DummyComm, ask, messages, picture, reply, say, until
from PIL import Image

import vlm_nb
from vlm_nb.errors import Cancelled, GenerationError, NoModelLoaded, OptionError, OutOfMemory, SourceNotFound
from vlm_nb.explorer import Explorer, assets, choices, explore


@pytest.fixture(autouse=True)
def dummy_comm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "create_comm", DummyComm)


@pytest.fixture
def model(fresh_registry: None) -> vlm_nb.VLM:
    return vlm_nb.load("scripted", engine="scripted", script=reply, engine_args={"delay": 0.005})


@pytest.fixture
def x(model: vlm_nb.VLM) -> Iterator[Explorer]:
    made = explore([picture("red"), picture("blue"), picture("green")])
    yield made
    made.close()


# Asking -----------------------------------------------------------------------------------------------------


def test_an_answer_streams_and_ends_as_a_prediction(x: Explorer) -> None:
    seen: list[str] = []
    x.observe(lambda change: seen.append(change["new"]["text"]), "ui_answer")
    ask(x, "what is it?")
    assert x.ui_answer["status"] == "done"
    assert seen[-1].endswith("nine ten")
    assert x.prediction is not None
    assert x.prediction.caption == x.ui_answer["text"]
    assert x.prediction.prompt == "what is it?"
    assert [turn["number"] for turn in x.ui_history] == [1]


def test_handlers_return_at_once(x: Explorer) -> None:
    threads = []
    x.observe(lambda change: threads.append(threading.current_thread().name), "ui_picture")
    say(x, "go", index=2)
    until(lambda: x.ui_picture.get("index") == 2)
    assert set(threads) == {"vlm_nb-explorer-images"}


def test_stop_keeps_what_there_is(model: vlm_nb.VLM, x: Explorer) -> None:
    model.engine._backend._args["delay"] = 0.05  # type: ignore[attr-defined]
    say(x, "ask", task="ask", prompt="slowly")
    until(lambda: x.ui_answer["text"].startswith("one two"))
    say(x, "stop")
    until(lambda: x.ui_answer["status"] == "stopped")
    assert x.ui_answer["text"].startswith("one two")
    assert "stopped before the end" in x.ui_answer["notes"]
    ask(x, "again")
    assert [p.usage.finish_reason for p in x.predictions] == ["cancelled", "stop"]


def test_a_second_ask_while_one_is_open_is_left_out(x: Explorer) -> None:
    say(x, "ask", task="ask", prompt="a")
    say(x, "ask", task="ask", prompt="b")
    until(lambda: x.ui_answer["status"] == "done")
    assert [turn["prompt"] for turn in x.ui_history] == ["a"]


def test_an_error_is_shown_with_its_text_and_the_next_question_works(x: Explorer) -> None:
    ask(x, "broken")
    assert x.ui_answer["status"] == "error"
    assert "boom" in x.ui_answer["problem"]["message"]
    ask(x)
    assert x.ui_answer["status"] == "done"


def test_no_match_is_no_empty_success(x: Explorer) -> None:
    ask(x, "nothing", "ground")
    assert x.ui_answer["grounding"] == "none", x.ui_answer
    assert x.ui_boxes["items"] == []


def test_a_region_is_asked_alone_and_its_boxes_map_back(x: Explorer) -> None:
    ask(x, "thing", "ground", region=[0.5, 0.0, 1.0, 1.0])
    (box,) = x.ui_boxes["items"]
    assert box["bbox"] == pytest.approx([0.5 + 0.5 / 4, 0.25, 0.75, 0.5], abs=0.02)
    assert x.prediction is not None
    assert x.prediction.image_size == SIZE


def test_without_images_the_question_is_refused_in_words(model: vlm_nb.VLM) -> None:
    x = explore()
    say(x, "ask", task="ask", prompt="what?")
    assert "add one first" in x.ui_notice["message"]
    assert x.ui_answer["status"] == "idle"
    x.close()


def test_an_unknown_task_is_an_alert(x: Explorer) -> None:
    say(x, "ask", task="dance", prompt="what?")
    assert "unknown task" in x.ui_notice["message"]


# Images -----------------------------------------------------------------------------------------------------


def test_paging_shows_each_image_and_its_own_answer(x: Explorer) -> None:
    ask(x, "about red")
    say(x, "go", index=1)
    until(lambda: x.ui_picture.get("index") == 1)
    assert x.ui_answer["status"] == "idle"
    say(x, "go", index=0)
    assert x.ui_answer["prompt"] == "about red"
    say(x, "go", index=99)
    assert x.ui_album["index"] == 2


def test_a_held_key_ends_on_the_right_image(model: vlm_nb.VLM) -> None:
    x = explore([picture() for _ in range(300)])
    for index in range(300):
        say(x, "go", index=index)
    until(lambda: x.ui_picture.get("index") == 299)
    assert x.ui_album["index"] == 299
    x.close()


def test_a_broken_image_stands_in_its_place(model: vlm_nb.VLM, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    x = explore([picture(), bad, picture("blue")])
    say(x, "go", index=1)
    until(lambda: x.ui_picture.get("index") == 1)
    assert "not an image" in x.ui_picture["error"]
    say(x, "ask", task="ask", prompt="what?")
    until(lambda: x.ui_answer["status"] == "error" or x.ui_notice)
    say(x, "go", index=2)
    until(lambda: x.ui_picture.get("index") == 2)
    assert not x.ui_picture["error"]
    x.close()


def test_an_upload_comes_in_parts(x: Explorer) -> None:
    stream = io.BytesIO()
    picture("purple", (320, 240)).save(stream, "PNG")
    data = stream.getvalue()
    half = len(data) // 2
    say(x, "upload", [memoryview(data[:half])], key="k", name="mine.png", part=0, parts=2)
    say(x, "upload", [memoryview(data[half:])], key="k", name="mine.png", part=1, parts=2)
    until(lambda: x.ui_picture.get("size") == [320, 240])
    assert x.ui_album["label"] == "mine.png"


def test_an_upload_that_is_no_image_is_an_alert(x: Explorer) -> None:
    say(x, "upload", [b"hello"], key="k", name="notes.txt", part=0, parts=1)
    until(lambda: x.ui_notice)
    assert "notes.txt" in x.ui_notice["message"]
    assert x.ui_album["count"] == 3


def test_a_path_that_is_not_there_is_an_alert(x: Explorer) -> None:
    say(x, "pick", text="nowhere.jpg")
    until(lambda: x.ui_notice)
    assert "no such file" in x.ui_notice["message"]


def test_an_alert_goes_with_the_next_success_but_not_with_another_file_of_the_same_drop(
    x: Explorer, tmp_path: Path
) -> None:
    picture().save(tmp_path / "good.png")
    data = (tmp_path / "good.png").read_bytes()
    say(x, "upload", [b"hello"], key="k", name="notes.txt", part=0, parts=1)
    say(x, "upload", [data], key="l", name="good.png", part=0, parts=1)
    until(lambda: x.ui_album["count"] == 4)
    assert "notes.txt" in x.ui_notice["message"]
    say(x, "pick", text=str(tmp_path / "good.png"))
    until(lambda: x.ui_album["count"] == 5 and not x.ui_notice)


def test_a_12_megapixel_photo_has_small_previews_and_sharp_crops(model: vlm_nb.VLM) -> None:
    noise = Image.effect_noise((4000, 3000), 80).convert("RGB")
    x = explore(noise)
    until(lambda: x.ui_picture.get("jpeg"))
    assert len(x.ui_picture["jpeg"]) <= 100_000
    say(x, "large", index=0)
    say(x, "crop", index=0, bbox=[0.25, 0.25, 0.5, 0.5], side=1000, seq=1)
    until(lambda: messages(x, "crop"))
    (large,), (crop,) = messages(x, "large"), messages(x, "crop")
    assert len(large["buffers"][0]) <= 1_000_000
    assert max(Image.open(io.BytesIO(large["buffers"][0])).size) == 1536
    assert crop["bbox"] == [0.25, 0.25, 0.5, 0.5]
    assert Image.open(io.BytesIO(crop["buffers"][0])).size[0] >= 750
    x.close()


def test_a_frame_gives_its_image_column_or_names_its_columns(model: vlm_nb.VLM, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    picture().save(tmp_path / "a.png")
    frame = pd.DataFrame({"photo": [str(tmp_path / "a.png")] * 2})
    with pytest.raises(OptionError, match="photo"):
        explore(frame)
    x = explore(frame, column="photo")
    assert x.ui_album["count"] == 2
    x.close()
    with pytest.raises(OptionError, match="nope"):
        explore(frame, column="nope")


def test_one_missing_image_raises_where_it_is_given(model: vlm_nb.VLM) -> None:
    with pytest.raises(SourceNotFound):
        explore("nowhere.jpg")


# Boxes ------------------------------------------------------------------------------------------------------


def test_corrections_are_one_change_a_gesture_and_undone_one_by_one(x: Explorer) -> None:
    ask(x, "thing", "ground")
    changes: list[Any] = []
    x.observe(lambda change: changes.append(change["new"]), "ui_boxes")
    say(x, "edit", op="change", id=1, bbox=[0.5, 0.5, 1.4, 0.9])
    assert len(changes) == 1
    assert x.prediction is not None
    (box,) = x.prediction.grounded_phrases
    assert box.bbox == (0.5, 0.5, 1.0, 0.9)
    assert box.source == "human"
    say(x, "edit", op="rename", id=1, phrase="  new   name ")
    say(x, "edit", op="add", bbox=[0.9, 0.9, 0.1, 0.1], phrase="other")
    say(x, "edit", op="delete", id=1)
    assert [b["phrase"] for b in x.ui_boxes["items"]] == ["other"]
    for _ in range(4):
        say(x, "edit", op="undo")
    assert x.ui_boxes["items"][0]["source"] == "model"
    assert x.ui_boxes["undo"] is False
    say(x, "edit", op="undo")
    assert len(x.ui_boxes["items"]) == 1


def test_the_models_own_box_is_kept_beside_the_corrected_one(x: Explorer) -> None:
    ask(x, "thing", "ground")
    first = tuple(x.ui_boxes["items"][0]["bbox"])
    say(x, "edit", op="change", id=1, bbox=[0, 0, 0.5, 0.5])
    say(x, "edit", op="change", id=1, bbox=[0, 0, 0.6, 0.6])
    (box,) = x._desk.turns[-1].boxes.now
    assert box.original is not None
    assert box.original.bbox == first


def test_a_box_can_be_drawn_without_a_question(x: Explorer) -> None:
    say(x, "edit", op="add", bbox=[0.1, 0.1, 0.2, 0.2], phrase="mine")
    assert x.prediction is not None
    assert x.prediction.grounded_phrases[0].phrase == "mine"
    assert x.prediction.image_size == SIZE


@pytest.mark.parametrize(
    "change",
    [
        {"op": "explode"},
        {"op": "delete", "id": 77},
        {"op": "add", "bbox": [0.1, 0.1, 0.1, 0.1]},
        {"op": "add", "bbox": [0, 0, float("nan"), 1]},
        {"op": "add", "bbox": [1, 2]},
    ],
    ids=["unknown", "not there", "no area", "nan", "two numbers"],
)
def test_an_impossible_edit_is_an_alert_and_changes_nothing(x: Explorer, change: dict[str, Any]) -> None:
    ask(x, "thing", "ground")
    before = x.ui_boxes
    say(x, "edit", **change)
    assert x.ui_notice["message"]
    assert x.ui_boxes["items"] == before["items"]


# Loading ----------------------------------------------------------------------------------------------------


def loader(**options: Any) -> Explorer:
    return explore([picture()], engine="scripted", script="ok", **options)


def test_a_load_reports_and_becomes_the_model_in_use(fresh_registry: None) -> None:
    x = loader(engine_args={"load_seconds": 0.3})
    seen: list[float] = []
    x.observe(lambda change: seen.append(change["new"]["done"]), "ui_loading")
    say(x, "load", model="toy", precision="4bit", device="cpu")
    until(lambda: x.ui_models["current"])
    assert len(set(seen)) >= 4
    assert x.ui_models["current"]["name"] == "toy"
    spec = vlm_nb.current().spec
    assert (spec.quantization, spec.device_map) == ("4bit", "cpu")
    x.close()
    assert vlm_nb.loaded() == []


def test_a_load_can_be_cancelled(fresh_registry: None) -> None:
    x = loader(engine_args={"load_seconds": 30})
    say(x, "load", model="toy")
    until(lambda: x.ui_loading["done"] > 0)
    say(x, "cancel_load")
    until(lambda: x.ui_loading["status"] == "idle")
    assert x.ui_loading["note"] == "Loading was cancelled."
    x.close()


def test_out_of_memory_on_auto_falls_back_to_4_bit_on_a_gpu(
    fresh_registry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def load(name: str, **keywords: Any) -> Any:
        asked.append(keywords.get("quantization"))
        if keywords.get("quantization") is None:
            raise OutOfMemory("out of memory")
        return original(name, **keywords)

    original = vlm_nb.registry.load
    monkeypatch.setattr(vlm_nb.registry, "load", load)
    monkeypatch.setattr(choices, "device_choices", lambda: [{"id": "cuda:0", "label": "gpu"}, {"id": "cpu"}])
    x = loader()
    say(x, "hello")
    until(lambda: len(x.ui_models["devices"]) == 2)
    say(x, "load", model="toy", precision="auto")
    until(lambda: x.ui_models["current"])
    assert asked == [None, "4bit"]
    assert "4-bit" in x.ui_loading["note"]
    x.close()


def test_a_failed_load_says_why_and_what_else(fresh_registry: None) -> None:
    x = explore([picture()], engine="scripted", engine_args={"model_type": "x", "nonsense": 1})
    say(x, "load", model="toy")
    until(lambda: x.ui_loading["status"] == "error")
    assert "nonsense" in x.ui_loading["problem"]["message"]
    x.close()


def test_a_model_of_another_cell_is_not_unloaded_by_closing(model: vlm_nb.VLM) -> None:
    x = explore([picture()])
    x.close()
    x.close()
    assert vlm_nb.loaded() == [model]


def test_names_and_keywords_are_checked_when_it_is_made(fresh_registry: None) -> None:
    with pytest.raises(OptionError, match="quantization"):
        explore([picture()], quantisation="4bit")
    with pytest.raises(NoModelLoaded):
        explore([picture()], model="toy")


def test_cached_models_are_found_by_their_image_processor(tmp_path: Path) -> None:
    for name, file in (
        ("models--org--seer", "preprocessor_config.json"),
        ("models--org--text", "config.json"),
    ):
        folder = tmp_path / name / "snapshots" / "abc"
        folder.mkdir(parents=True)
        (folder / file).touch()
    assert choices.cached_models(tmp_path) == ["org/seer"]
    assert choices.cached_models(tmp_path / "nowhere") == []


def test_gpu_lines_of_the_driver_tool_are_read() -> None:
    made = choices._gpu(["0", "NVIDIA T4", "15000", "15360"])
    assert made == {"id": "cuda:0", "label": "NVIDIA T4 (cuda:0), 15.7 GB of 16.1 GB free"}
    assert choices._gpu(["[N/A]"]) is None


# Keeping ----------------------------------------------------------------------------------------------------


def test_results_and_exports_hold_what_was_answered(x: Explorer, tmp_path: Path) -> None:
    ask(x, "thing", "ground")
    ask(x, "what?")
    frame = x.results
    assert list(frame["caption"])[1].startswith("one two")
    assert frame["boxes"][0][0]["phrase"] == "thing"
    for kind in ("json", "csv", "html"):
        say(x, "export", format=kind)
    files = {m["name"]: bytes(m["buffers"][0]).decode() for m in messages(x, "file")}
    rows = [json.loads(line) for line in files["answers.jsonl"].splitlines()]
    assert rows[0]["grounded_phrases"][0]["bbox"] == pytest.approx(frame["boxes"][0][0]["bbox"])
    pd = pytest.importorskip("pandas")
    table = pd.read_csv(io.StringIO(files["answers.csv"]))
    assert list(table["caption"].fillna("")) == list(frame["caption"])
    assert json.loads(table["boxes"][0]) == frame["boxes"][0]
    page = x.to_html(tmp_path / "page.html").read_text()
    assert page.count("<article>") == 2
    assert "data:image/jpeg;base64," in page


def test_recall_goes_back_to_the_answer_and_its_image(x: Explorer) -> None:
    ask(x, "first")
    say(x, "go", index=2)
    ask(x, "second")
    say(x, "recall", number=1)
    assert (x.ui_album["index"], x.ui_answer["prompt"]) == (0, "first")


def test_closing_ends_the_threads(model: vlm_nb.VLM) -> None:
    before = set(threading.enumerate())
    x = explore([picture()])
    ask(x)
    x.close()
    until(lambda: not [t for t in set(threading.enumerate()) - before if "explorer" in t.name])
    say(x, "ask", task="ask", prompt="after")


# From Python ------------------------------------------------------------------------------------------------


def test_ask_returns_the_answer_that_the_widget_shows(x: Explorer) -> None:
    answer = x.ask("what is it?", image=1)
    assert answer.caption.endswith("nine ten")
    assert (x.ui_answer["status"], x.ui_answer["image"], x.ui_answer["text"]) == ("done", 1, answer.caption)
    assert x.prediction is not None
    assert x.prediction.raw == answer.raw


def test_a_region_is_in_terms_of_the_whole_image(x: Explorer) -> None:
    (phrase,) = x.ask("thing", "ground", region=(0.5, 0.0, 1.0, 1.0)).grounded_phrases
    assert phrase.bbox == pytest.approx([0.5 + 0.5 / 4, 0.25, 0.75, 0.5], abs=0.02)


def test_the_models_error_is_raised_and_the_next_question_works(x: Explorer) -> None:
    with pytest.raises(GenerationError, match="boom"):
        x.ask("broken")
    assert x.ui_answer["status"] == "error"
    assert x.ask("again").caption


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "sing"}, "unknown task 'sing'; allowed are: ask, caption, ground"),
        ({"image": 3}, "image 3: there are 3, counted from 0"),
        ({"image": -1}, "image -1"),
    ],
)
def test_what_cannot_be_asked_is_refused(x: Explorer, given: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        x.ask("what?", **given)  # type: ignore[arg-type]
    assert x.predictions == []


def test_while_another_answer_is_open_it_is_refused(model: vlm_nb.VLM, x: Explorer) -> None:
    model.engine._backend._args["delay"] = 0.05  # type: ignore[attr-defined]
    say(x, "ask", task="ask", prompt="slowly")
    with pytest.raises(OptionError, match="another answer is open"):
        x.ask("what?")


def test_stop_gives_the_partial_answer_and_close_ends_the_wait(model: vlm_nb.VLM, x: Explorer) -> None:
    model.engine._backend._args["delay"] = 0.05  # type: ignore[attr-defined]
    answers: list[object] = []

    def asking() -> None:
        try:
            answers.append(x.ask("slowly").usage.finish_reason)
        except Cancelled as error:
            answers.append(error)

    for end in (lambda: say(x, "stop"), x.close):
        waiting = threading.Thread(target=asking)
        waiting.start()
        until(lambda: x.ui_answer["text"].startswith("one two"))
        end()
        waiting.join(10)
        assert not waiting.is_alive()
        time.sleep(0.05)
    assert answers[0] == "cancelled"
    assert len(answers) == 2


def test_its_repr_says_how_many_images(model: vlm_nb.VLM) -> None:
    x = explore([picture("red")])
    assert repr(x) == "<Explorer: 1 image>"
    x.close()
    assert repr(x) == "<Explorer: 0 images, closed>"


# Assets -----------------------------------------------------------------------------------------------------


def test_the_module_is_one_file_without_imports_or_addresses() -> None:
    code = assets.esm()
    assert not [line for line in code.splitlines() if line.startswith("import ")]
    assert code.count("\nexport ") == 1
    assert "export default" in code
    for text in (code.replace("http://www.w3.org/2000/svg", ""), assets.css()):
        assert "http:" not in text
        assert "https:" not in text
        assert "innerHTML" not in text
    assert len(code) < 100_000
