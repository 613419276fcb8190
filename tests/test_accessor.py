"""``df.vlm``: new columns under the same index, bad rows in their place, nothing of the caller's changed."""

from __future__ import annotations

import http.server
import json
import re
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scripted import boxes_json, picture, picture_files

from vlm_nb import accessor, batch, registry
from vlm_nb.accessor.columns import image_column
from vlm_nb.errors import CapabilityError, NoModelLoaded, OptionError, SourceNotFound
from vlm_nb.request import Request
from vlm_nb.sources import to_data_uri

ASKED: list[str] = []


@pytest.fixture(autouse=True)
def _registered() -> None:
    accessor.register()


def answer(request: Request) -> Any:
    text = request.messages[-1].text
    ASKED.append(text)
    if "Locate" in text:
        width, height = request.input_sizes[0]
        return boxes_json((0, 0, width / 2, height))
    return 1 / 0 if "fail" in text else f"to {text}"


@pytest.fixture
def model() -> Iterator[Any]:
    registry.unload_all()
    ASKED.clear()
    yield registry.load("echo", engine="scripted", script=answer, engine_args={"fingerprint": "echo"})
    registry.unload_all()


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    return [str(path) for path in picture_files(tmp_path, 4)]


@pytest.fixture
def frame(paths: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"kind": ["a", "b", "c", "d"], "image": paths}, index=[3, 3, 1, 0])


# What comes back --------------------------------------------------------------------------------------------


def test_caption_adds_its_columns_and_changes_nothing_else(model: Any, frame: pd.DataFrame) -> None:
    before = frame.copy()
    out = frame.vlm.caption(show_progress=False)
    pd.testing.assert_frame_equal(frame, before)
    assert frame.attrs == {}
    pd.testing.assert_frame_equal(out[["kind", "image"]], before, check_flags=False)
    assert list(out.columns) == ["kind", "image", "caption", "caption_error"]
    assert out["caption"].tolist() == ["to Describe this image."] * 4
    assert out["caption_error"].isna().all()


def test_text_columns_have_pandas_own_string_type(model: Any, frame: pd.DataFrame) -> None:
    out = frame.vlm.caption(show_progress=False)
    wanted = pd.Series(["x"]).dtype
    assert out["caption"].dtype == wanted
    assert out["caption_error"].dtype == wanted


def test_changing_the_result_does_not_change_the_original(model: Any, frame: pd.DataFrame) -> None:
    out = frame.vlm.caption(show_progress=False)
    out.iloc[0, 0] = "changed"
    assert frame.iloc[0, 0] == "a"


def test_ground_gives_boxes_of_the_upright_original(model: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(300, 200).save(tmp_path / "turned.jpg", exif=exif)
    frame = pd.DataFrame({"image": [str(tmp_path / "turned.jpg"), None]})
    out = frame.vlm.ground("red box", show_progress=False)
    assert list(out.columns) == ["image", "boxes", "grounding", "image_width", "image_height", "boxes_error"]
    assert out["grounding"].tolist()[0] == "found"
    assert (out["image_width"].iloc[0], out["image_height"].iloc[0]) == (200, 300)
    assert out["boxes"].iloc[0][0]["bbox"] == pytest.approx([0, 0, 0.5, 1], abs=0.01)
    assert out["boxes"].iloc[1] is None
    assert pd.isna(out["image_width"].iloc[1])
    assert str(out["image_width"].dtype) == "Int64"


def test_ask_with_a_text_holds_braces_as_text(model: Any, frame: pd.DataFrame) -> None:
    out = frame.vlm.ask("is {kind} {{a}} $kind?", show_progress=False)
    assert out["answer"].tolist() == ["to is {kind} {{a}} $kind?"] * 4


def test_calls_can_be_chained_and_named(model: Any, frame: pd.DataFrame) -> None:
    out = frame.vlm.caption(show_progress=False).vlm.ask("colour?", name="colour", show_progress=False)
    out = out.vlm.ask("shape?", name="shape", show_progress=False)
    assert out["colour"].iloc[0] == "to colour?"
    assert out["shape"].iloc[0] == "to shape?"
    assert "caption" in out
    assert set(out.attrs["vlm"]["calls"]) == {"caption", "colour", "shape"}


def test_attrs_are_json_and_say_how(model: Any, frame: pd.DataFrame) -> None:
    out = frame.vlm.ask("colour?", max_new_tokens=9, system="be brief", show_progress=False)
    note = json.loads(json.dumps(out.attrs))["vlm"]
    assert note["vlm_nb"]
    assert note["pandas"] == pd.__version__
    call = note["calls"]["answer"]
    assert call["columns"] == ["answer", "answer_error"]
    assert call["prompt"] == "colour?"
    assert call["settings"] == {"max_new_tokens": 9, "system": "be brief"}
    assert call["model"]["name"] == "echo"
    assert call["rows"] == 4


def test_a_second_run_overwrites_only_ours(model: Any, frame: pd.DataFrame) -> None:
    out = frame.vlm.caption(show_progress=False)
    again = out.vlm.caption(show_progress=False)
    assert list(again.columns) == list(out.columns)
    theirs = frame.assign(caption="mine")
    with pytest.raises(OptionError, match=r"'caption'.*name='caption_2'.*overwrite=True"):
        theirs.vlm.caption()
    assert theirs.vlm.caption(name="seen", show_progress=False)["caption"].tolist() == ["mine"] * 4
    replaced = theirs.vlm.caption(overwrite=True, show_progress=False)
    assert replaced["caption"].iloc[0] == "to Describe this image."


def test_a_second_run_computes_nothing(model: Any, frame: pd.DataFrame) -> None:
    frame.vlm.caption(show_progress=False)
    ASKED.clear()
    out = frame.vlm.caption(show_progress=False)
    assert ASKED == []
    assert out.attrs["vlm"]["calls"]["caption"]["known"] == 4


@pytest.mark.parametrize(
    "index",
    [
        pd.Index(["x", "x", "x", "x"]),
        pd.MultiIndex.from_tuples([(1, "a"), (1, "b"), (2, "a"), (2, "a")], names=["n", "l"]),
        pd.date_range("2024-01-01", periods=4),
        pd.Index([None, 1.5, "b", (1, 2)], dtype=object),
    ],
    ids=["duplicates", "multi", "dates", "mixed"],
)
def test_any_index_is_kept(model: Any, paths: list[str], index: pd.Index) -> None:
    out = pd.DataFrame({"image": paths}, index=index).vlm.ask("q", show_progress=False)
    pd.testing.assert_index_equal(out.index, index)
    assert out["answer"].tolist() == ["to q"] * 4


def test_an_empty_table_gets_its_columns(model: Any) -> None:
    empty = pd.DataFrame({"image": pd.Series([], dtype=object)})
    assert list(empty.vlm.caption(show_progress=False).columns) == ["image", "caption", "caption_error"]
    assert len(empty.vlm.ground(show_progress=False)) == 0
    for nothing in (pd.DataFrame({"image": []}), pd.DataFrame({"image": np.zeros(0)})):
        assert list(nothing.vlm.caption(show_progress=False)) == ["image", "caption", "caption_error"]
    assert len(empty["image"].vlm.caption(show_progress=False)) == 0


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["good", "null", "missing", "fail"]), st.integers(0, 3), st.integers(-3, 3)
        ),
        max_size=25,
    )
)
@settings(max_examples=25, deadline=None)
def test_every_answer_stands_in_its_own_row(rows: list[tuple[str, int, int]]) -> None:
    registry.unload_all()
    registry.load("echo", engine="scripted", script=answer)
    cells = {"null": None, "missing": "nowhere.png", "good": picture(), "fail": picture(70, 70)}
    frame = pd.DataFrame(
        {
            "image": pd.Series([cells[kind] for kind, _, _ in rows], dtype=object),
            "q": [q for _, q, _ in rows],
        },
    ).set_index(pd.Index([label for _, _, label in rows], dtype="int64"))
    kinds = [kind for kind, _, _ in rows]
    prompts = [f"{'fail' if kind == 'fail' else 'q'} {q}" for kind, q, _ in rows]
    out = frame.vlm.ask(pd.Series(prompts, index=frame.index, dtype=object), show_progress=False)
    registry.unload_all()
    pd.testing.assert_index_equal(out.index, frame.index)
    for place, (kind, prompt) in enumerate(zip(kinds, prompts, strict=True)):
        value, error = out["answer"].iloc[place], out["answer_error"].iloc[place]
        if kind == "good":
            assert value == f"to {prompt}"
            assert pd.isna(error)
        else:
            assert pd.isna(value)
            named = {"null": "no image", "missing": "SourceNotFound", "fail": "GenerationError"}
            assert named[kind] in error


# Cells ------------------------------------------------------------------------------------------------------


def test_cells_of_every_kind(model: Any, paths: list[str]) -> None:
    data = Path(paths[0]).read_bytes()
    cells = [
        paths[0],
        Path(paths[1]),
        data,
        picture(),
        np.zeros((40, 50, 3), dtype=np.uint8),
        to_data_uri(picture()),
        {"bytes": data, "path": "in-a-dataset.png"},
        {"bytes": None, "path": paths[2]},
        bytearray(data),
    ]
    out = pd.DataFrame({"image": pd.Series(cells, dtype=object)}).vlm.ask("q", show_progress=False)
    assert out["answer"].tolist() == ["to q"] * len(cells), out["answer_error"].tolist()


@pytest.mark.parametrize("null", [None, np.nan, pd.NA, pd.NaT, float("nan")], ids=str)
def test_a_null_image_is_a_null_answer_and_no_question(model: Any, paths: list[str], null: Any) -> None:
    out = pd.DataFrame({"image": pd.Series([paths[0], null], dtype=object)}).vlm.ask("q", show_progress=False)
    assert out["answer"].iloc[0] == "to q"
    assert pd.isna(out["answer"].iloc[1])
    assert "no image in this row" in out["answer_error"].iloc[1]
    assert len(ASKED) == 1


def test_the_line_under_a_run_counts_every_row_once(
    model: Any, paths: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.DataFrame({"image": [*paths[:2], None, "gone.png", np.nan, "away.png"]})
    frame.iloc[:2].vlm.ask("q", show_progress=False)
    out = frame.vlm.ask("q", show_progress=True)
    line = capsys.readouterr().err.strip()
    assert re.fullmatch(r"6 rows in .* s(, .* rows/s)?; 2 without an image, 2 already known, 2 failed", line)
    assert out["answer_error"].notna().sum() == 4, "failed or without an image"
    call = out.attrs["vlm"]["calls"]["answer"]
    assert (call["rows"], call["nulls"], call["known"], call["failed"]) == (6, 2, 2, 2)
    again = out.vlm.retry_failed(show_progress=False).attrs["vlm"]["calls"]["answer"]
    assert (again["rows"], again["nulls"], again["failed"]) == (6, 2, 2)


class Server(http.server.BaseHTTPRequestHandler):
    stop = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/404.png":
            self.send_error(404)
        elif self.path == "/hang.png":
            self.stop.wait(20)
        else:
            body = b"<!doctype html><html>sign in</html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Server.stop.clear()
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    Server.stop.set()
    served.shutdown()
    thread.join()
    served.server_close()


def test_bad_input_of_every_kind_is_its_own_row_s_error(
    model: Any, paths: list[str], server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_NB_URL_TIMEOUT", "0.5")
    (tmp_path / "page.png").write_bytes(b"<!doctype html><html></html>")
    (tmp_path / "cut.png").write_bytes(Path(paths[0]).read_bytes()[:60])
    Image.new("1", (20_000, 10_000)).save(tmp_path / "huge.png", compress_level=1)
    bad = {
        "missing": ("nowhere.png", "SourceNotFound"),
        "404": (f"{server}/404.png", "404"),
        "html": (str(tmp_path / "page.png"), "HTML"),
        "html url": (f"{server}/login.png", "HTML"),
        "hanging": (f"{server}/hang.png", "no complete answer in 0.5 s"),
        "corrupt": (str(tmp_path / "cut.png"), "damaged"),
        "huge": (str(tmp_path / "huge.png"), "ImageTooLarge"),
        "number": (3.5, "SourceError"),
        "list": ([paths[0], paths[1]], "stands for 2"),
        "folder": (str(tmp_path), "stands for"),
        "dict": ({"a": 1}, "SourceError"),
        "empty": ("", "SourceError"),
        "folder of nothing": ("/", "no images in the folder"),
    }
    cells = [paths[0], *(cell for cell, _ in bad.values()), paths[1]]
    frame = pd.DataFrame({"image": pd.Series(cells, dtype=object)})
    out = frame.vlm.ask("q", show_progress=False)
    assert out["answer"].iloc[[0, -1]].tolist() == ["to q", "to q"]
    for place, (name, (_, wanted)) in enumerate(bad.items(), 1):
        assert pd.isna(out["answer"].iloc[place]), name
        assert wanted in out["answer_error"].iloc[place], (name, out["answer_error"].iloc[place])
    assert out.attrs["vlm"]["calls"]["answer"]["failed"] == len(bad)


def test_many_missing_files_are_quick_to_say(model: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame({"image": [str(tmp_path / f"{number}.png") for number in range(500)]})
    out = frame.vlm.caption(show_progress=False)
    assert out["caption_error"].str.startswith("SourceNotFound").all()


def test_on_error_raise_raises_the_first_failure(model: Any, frame: pd.DataFrame) -> None:
    frame.iloc[1, 1] = "nowhere.png"
    with pytest.raises(SourceNotFound, match=r"nowhere\.png") as caught:
        frame.vlm.caption(on_error="raise", show_progress=False)
    assert caught.value.index == 1
    with pytest.raises(OptionError, match="on_error"):
        frame.vlm.caption(on_error="ignore")


# Questions --------------------------------------------------------------------------------------------------


def test_a_question_series_is_aligned_by_index(model: Any, paths: list[str]) -> None:
    frame = pd.DataFrame({"image": paths, "kind": list("abcd")}, index=[10, 20, 30, 40])
    out = frame.vlm.ask("Is this a " + frame["kind"] + "?", show_progress=False)
    assert out["answer"].tolist() == [f"to Is this a {kind}?" for kind in "abcd"]
    shuffled = pd.Series({40: "four", 10: "one", 30: "three", 20: "two"})
    out = frame.vlm.ask(shuffled, show_progress=False)
    assert out["answer"].tolist() == ["to one", "to two", "to three", "to four"]


def test_a_question_series_that_does_not_fit_is_one_clear_line(model: Any, frame: pd.DataFrame) -> None:
    with pytest.raises(OptionError, match="has 2 rows, the table 4"):
        frame.vlm.ask(pd.Series(["a", "b"]))
    with pytest.raises(OptionError, match="another index"):
        frame.vlm.ask(pd.Series(list("abcd"), index=[7, 8, 9, 10]))
    with pytest.raises(OptionError, match="not list"):
        frame.vlm.ask(["a", "b", "c", "d"])
    assert ASKED == []


def test_a_null_question_is_its_row_s_error(model: Any, frame: pd.DataFrame) -> None:
    questions = pd.Series(["a", None, "c", ""], index=frame.index)
    out = frame.vlm.ask(questions, show_progress=False)
    assert out["answer_error"].isna().tolist() == [True, False, True, False]
    assert "no question" in out["answer_error"].iloc[1]
    assert "empty" in out["answer_error"].iloc[3]


def test_a_function_of_the_row_asks(model: Any, frame: pd.DataFrame) -> None:
    def question(row: Any) -> str:
        return f"about {row['kind']}" if row["kind"] != "c" else 1 / 0

    out = frame.vlm.ask(question, show_progress=False)
    assert out["answer"].tolist()[:2] == ["to about a", "to about b"]
    assert "ZeroDivisionError" in out["answer_error"].iloc[2]
    assert out["answer"].iloc[3] == "to about d"


def test_phrases_for_each_row(model: Any, frame: pd.DataFrame) -> None:
    frame.vlm.ground("kind " + frame["kind"], show_progress=False)
    assert {text.split("kind ")[1][0] for text in ASKED} == {"a", "b", "c", "d"}


@pytest.mark.parametrize("question", [None, "", "  "], ids=repr)
def test_no_question_is_one_clear_line(model: Any, frame: pd.DataFrame, question: Any) -> None:
    with pytest.raises(ValueError, match="question"):
        frame.vlm.ask(question)


def test_an_unknown_setting_names_the_nearest(model: Any, frame: pd.DataFrame) -> None:
    for question in ("q", frame["kind"]):
        with pytest.raises(OptionError, match="max_new_tokens"):
            frame.vlm.ask(question, max_new_token=3)
    assert ASKED == []


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"progress": False}, "did you mean show_progress"),
        ({"column": "file"}, r"did you mean image\?"),
        ({"output_column": "seen"}, r"did you mean name\?"),
        ({"batch_size": 4}, "max_batch_size="),
        ({"qqqq": 4}, "allowed are: .*image.*name.*show_progress"),
    ],
    ids=str,
)
def test_a_keyword_of_another_tool_names_ours(
    model: Any, frame: pd.DataFrame, given: dict[str, Any], wanted: str
) -> None:
    for table in (frame, frame["image"]):
        with pytest.raises(OptionError, match=wanted):
            table.vlm.caption(**given)


def test_settings_of_another_form_go_with_a_question_series(model: Any, frame: pd.DataFrame) -> None:
    how = {"generation_config": {"max_new_tokens": 1}, "show_progress": False}
    assert frame.vlm.ask(frame["kind"], **how)["answer"].tolist() == ["to"] * 4


def test_an_unknown_call_names_the_nearest(frame: pd.DataFrame) -> None:
    for name, wanted in (("detect", "ground"), ("vqa", "ask"), ("captoin", "caption")):
        with pytest.raises(AttributeError, match=rf"no '{name}'; did you mean {wanted}\(\.\.\.\)"):
            getattr(frame.vlm, name)
    with pytest.raises(AttributeError, match="there are: caption, ask, ground, extract, show"):
        _ = frame["image"].vlm.qqqq
    assert not hasattr(frame.vlm, "_repr_html_")


def test_the_accessor_says_what_it_is(frame: pd.DataFrame) -> None:
    first, calls = repr(frame.vlm).splitlines()
    assert first == "df.vlm: 4 rows; images in 'image'"
    assert calls.startswith("calls: caption, ask, ground, extract, retry_failed")
    assert "to_coco" in calls
    assert "no column of images found among 'kind'" in repr(frame[["kind"]].vlm)
    assert repr(frame["image"].vlm).splitlines()[0] == "series.vlm: 4 rows"


# Columns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"image": ["a.png"], "n": [1]}, "image"),
        ({"foto": ["a.png"], "text": ["dog"]}, "foto"),
        ({"x": [b"\x89PNG...."], "y": ["dog"]}, "x"),
        ({"x": ["https://host/a.jpg?size=3"], "y": ["https://host/page"]}, "x"),
        ({"x": [{"bytes": b"", "path": "a.png"}], "y": [1]}, "x"),
        ({"path": ["noending"], "label": ["dog"]}, "path"),
        ({"image": [None], "label": [None]}, "image"),
        ({"image": np.zeros(0)}, "image"),
        ({"image": [np.nan, np.nan], "n": [1, 2]}, "image"),
        ({"image": ["a.png"], "thumbnail": ["b.png"]}, "image"),
        ({"Image": ["a.png"], "other": ["b.png"]}, "Image"),
        ({"url": ["https://host/a.png"], "caption": ["see a.pdf"]}, "url"),
        ({("a", "b"): ["a.png"]}, ("a", "b")),
        ({7: ["a.png"], 8: [1]}, 7),
    ],
    ids=str,
)
def test_the_image_column_is_found(columns: dict[Any, Any], found: Any) -> None:
    assert image_column(pd.DataFrame(columns)).name == found


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"left": ["a.png"], "right": ["b.png"]}, r"several.*'left', 'right'.*image='left'"),
        ({"path": ["a.png"], "url": ["https://host/b.png"]}, r"several.*'path', 'url'"),
        ({"n": [1], "text": ["dog"]}, r"no column of images.*'n' \(int64\), 'text'"),
        ({}, "no columns at all"),
    ],
    ids=str,
)
def test_an_unclear_image_column_names_the_candidates(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        image_column(pd.DataFrame(columns))


def test_a_named_column_is_taken_and_a_wrong_name_told(model: Any, paths: list[str]) -> None:
    frame = pd.DataFrame({"left": paths, "right": paths[::-1]})
    assert len(frame.vlm.caption(image="right", show_progress=False)) == 4
    with pytest.raises(OptionError, match=r"no column is called 'middle'.*'left', 'right'"):
        frame.vlm.caption(image="middle")
    twice = pd.DataFrame([[paths[0], paths[1]]], columns=["image", "image"])
    with pytest.raises(OptionError, match="2 columns are called 'image'"):
        twice.vlm.caption(image="image")


# Series -----------------------------------------------------------------------------------------------------


def test_series_calls_give_a_series(model: Any, frame: pd.DataFrame) -> None:
    images = frame["image"]
    captions = images.vlm.caption(show_progress=False)
    assert isinstance(captions, pd.Series)
    pd.testing.assert_index_equal(captions.index, images.index)
    assert captions.name == "caption"
    assert captions.tolist() == ["to Describe this image."] * 4
    boxes = images.vlm.ground("red", show_progress=False)
    assert boxes.iloc[0][0]["phrase"] == "red box"
    asked = images.vlm.ask(lambda cell: Path(cell).stem, name="stem", show_progress=False)
    assert asked.tolist() == ["to 0", "to 1", "to 2", "to 3"]
    assert json.dumps(captions.attrs["vlm"])


def test_series_failures_are_null_with_one_warning(model: Any, frame: pd.DataFrame) -> None:
    images = frame["image"].copy()
    images.iloc[1], images.iloc[2], images.iloc[3] = "nowhere.png", "nothing.png", None
    with pytest.warns(UserWarning, match="2 of 4 rows failed") as caught:
        out = images.vlm.caption(show_progress=False)
    assert len(caught) == 1
    assert out.isna().tolist() == [False, True, True, True]
    failures = out.attrs["vlm"]["failures"]
    assert [failure["row"] for failure in failures] == [1, 2]
    assert "nowhere.png" in failures[0]["error"]


# Again, estimates, interrupts -------------------------------------------------------------------------------


def test_retry_failed_asks_only_what_failed(model: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
    late = tmp_path / "late.png"
    frame.iloc[1, 1], frame.iloc[2, 1] = str(late), None
    out = frame.vlm.ask("colour?", max_new_tokens=99, show_progress=False)
    assert pd.isna(out["answer"].iloc[1])
    picture(99, 60).save(late)
    ASKED.clear()
    again = out.vlm.retry_failed(show_progress=False)
    assert ASKED == ["colour?"]
    assert again["answer"].iloc[1] == "to colour?"
    assert pd.isna(again["answer_error"].iloc[1])
    assert "no image" in again["answer_error"].iloc[2]
    assert again["answer"].iloc[0] == out["answer"].iloc[0]
    assert again.attrs["vlm"]["calls"]["answer"]["failed"] == 0
    assert pd.isna(out["answer"].iloc[1]), "the frame it was called on is untouched"


def test_retry_failed_of_boxes_keeps_the_others(model: Any, frame: pd.DataFrame) -> None:
    frame.iloc[1, 1] = "nowhere.png"
    out = frame.vlm.ground("red", show_progress=False)
    again = out.vlm.retry_failed("boxes", show_progress=False)
    assert again["boxes"].iloc[0] == out["boxes"].iloc[0]
    assert again["image_width"].tolist()[0] == 60
    assert again["boxes"].iloc[1] is None


def test_retry_failed_says_what_it_needs(model: Any, frame: pd.DataFrame) -> None:
    with pytest.raises(OptionError, match="no earlier call"):
        frame.vlm.retry_failed()
    frame.iloc[1, 1] = "nowhere.png"
    out = frame.vlm.ask("the " + frame["kind"], show_progress=False)
    with pytest.raises(OptionError, match=r"retry_failed\(question="):
        out.vlm.retry_failed()
    assert len(out.vlm.retry_failed(question="the " + frame["kind"], show_progress=False)) == 4
    registry.load("other", engine="scripted", script="x")
    with pytest.raises(OptionError, match="answered by 'echo', the current model is 'other'"):
        out.vlm.retry_failed()
    named = out.vlm.retry_failed(question="q", model="other", show_progress=False)
    assert "nowhere" in named["answer_error"].iloc[1]


def test_estimate_measures_three_rows(model: Any, tmp_path: Path) -> None:
    cells: list[Any] = [picture(60 + number, 60) for number in range(20)]
    frame = pd.DataFrame({"image": pd.Series([*cells, None], dtype=object)})
    told = frame.vlm.estimate("q")
    assert len(ASKED) == 3
    assert (told.rows, told.nulls, told.known, told.measured) == (20, 1, 0, 3)
    assert told.image_tokens is not None
    lines = repr(told).splitlines()
    assert lines[0] == "rows: 20, 1 more without an image; in the ledger already: 0"
    assert lines[1].startswith("image tokens: about ")
    assert "3 measured" in lines[2]
    assert lines[3].startswith("memory: model")
    assert frame.vlm.estimate("q").known == 3, "what was measured is kept"
    frame.vlm.ask("q", show_progress=False)
    whole = frame.vlm.estimate("q")
    assert (whole.known, whole.measured, whole.seconds) == (20, 0, None)


class Stopping:
    """A question that stops everything at one row, as Ctrl+C in mid-run does."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, row: Any) -> str:
        self.left -= 1
        if self.left == 0:
            time.sleep(0.2)
            raise KeyboardInterrupt
        return "q"


def big(count: int) -> pd.DataFrame:
    cells = [Image.new("RGB", (28, 28), (number % 256, number // 256, 0)) for number in range(count)]
    return pd.DataFrame({"image": pd.Series(cells, dtype=object)})


def test_interrupt_in_ipython_returns_what_is_finished(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlm_nb.accessor import table

    monkeypatch.setattr(table, "in_ipython", lambda: True)
    with pytest.warns(UserWarning, match="interrupted: .* of 400 rows .* Run the cell again"):
        out = big(400).vlm.ask(Stopping(300), show_progress=False)
    done = out["answer"].notna()
    assert 0 < done.sum() < 400
    assert (out.loc[done, "answer"] == "to q").all()
    assert out.loc[~done, "answer_error"].str.contains("Run the same call again").all()
    ASKED.clear()
    rest = big(400).vlm.ask("q", show_progress=False)
    assert rest["answer"].notna().all()
    assert len(ASKED) <= 400 - done.sum()


def test_interrupt_elsewhere_raises(model: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        big(400).vlm.ask(Stopping(300), show_progress=False)
    assert not batch.in_ipython()


# Models, schemas --------------------------------------------------------------------------------------------


def test_no_model_loaded_names_the_command(frame: pd.DataFrame) -> None:
    registry.unload_all()
    for call in (frame.vlm.caption, frame["image"].vlm.caption, frame.vlm.estimate):
        with pytest.raises(NoModelLoaded, match="%vlm load"):
            call()


def test_a_named_model_is_used(model: Any, frame: pd.DataFrame) -> None:
    other = registry.load("other", engine="scripted", script="from other", keep=True)
    registry.use(model)
    assert frame.vlm.caption(model="other", show_progress=False)["caption"].iloc[0] == "from other"
    assert frame.vlm.caption(model=other, show_progress=False)["caption"].iloc[0] == "from other"


SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["colour", "count"],
}


def test_extract_gives_a_column_for_each_field(frame: pd.DataFrame) -> None:
    registry.unload_all()
    frame.iloc[1, 1] = "nowhere.png"
    registry.load("typed", engine="scripted", script='{"colour": "red", "count": 2}')
    out = frame.vlm.extract(SCHEMA, show_progress=False)
    assert list(out.columns) == ["kind", "image", "colour", "count", "extract_error"]
    assert out["colour"].tolist() == ["red", None, "red", "red"]
    assert out["count"].iloc[0] == 2
    with pytest.warns(UserWarning, match="1 of 4"):
        values = frame["image"].vlm.extract(SCHEMA, show_progress=False)
    assert values.iloc[0] == {"colour": "red", "count": 2}
    registry.unload_all()


def test_extract_where_the_engine_cannot(frame: pd.DataFrame) -> None:
    registry.unload_all()
    no_schema = {"capabilities": {"schema": False}}
    registry.load("plain", engine="scripted", script="x", engine_args=no_schema)
    with pytest.raises(CapabilityError, match="cannot constrain"):
        frame.vlm.extract(SCHEMA)
    registry.unload_all()


def test_nothing_is_said_without_reason(model: Any, frame: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame.vlm.caption(show_progress=False).vlm.ground("x", show_progress=False)
