"""Parquet of images in, Parquet of answers out, here; ``test_engine_ray.py`` does it on a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import vlm_nb
from vlm_nb import demo
from vlm_nb.errors import OptionError, PromptError, SourceNotFound
from vlm_nb.request import Request

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

pytestmark = pytest.mark.usefixtures("fresh_registry")


def scripted(script: Any = "a dog", **engine_args: Any) -> vlm_nb.VLM:
    return vlm_nb.load("m", engine="scripted", script=script, engine_args=engine_args)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    names = [f"{i}.png" for i in range(7)]
    for i, name in enumerate(names):
        Image.new("RGB", (60 + i, 50), (30 * i, 0, 0)).save(tmp_path / name)
    return names


def write(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=4)
    return path


def rows_of(output: Path) -> list[dict[str, Any]]:
    return pq.read_table(output).to_pylist()


def test_every_row_is_answered_in_its_place(tmp_path: Path, pictures: list[str]) -> None:
    paths = [str(tmp_path / name) for name in pictures]
    source = write(tmp_path / "in.parquet", image=paths, kind=list("abcdefg"))
    model = scripted(lambda request: f"{request.images[0].size[0]} wide")
    counts = model.run_parquet(
        source, output=tmp_path / "out", question="How wide?", rows=3, show_progress=False
    )
    assert (counts.rows, counts.failed, counts.hits) == (7, 0, 0)
    rows = rows_of(tmp_path / "out")
    assert [row["kind"] for row in rows] == list("abcdefg")
    assert [(row["answer_width"], row["answer_height"]) for row in rows] == [(60 + i, 50) for i in range(7)]
    assert all(row["answer"].endswith("wide") and row["answer_error"] is None for row in rows)
    parts = sorted(path.name for path in (tmp_path / "out").glob("*.parquet"))
    assert parts == [f"in-0000{g}-0000000{s}.parquet" for g, s in ((0, 0), (0, 3), (1, 0))]
    assert not list((tmp_path / "out").glob(".*"))


def test_a_bad_row_fails_alone_and_only_it_is_asked_again(tmp_path: Path, pictures: list[str]) -> None:
    paths: list[str | None] = [str(tmp_path / name) for name in pictures]
    paths[1], paths[2] = str(tmp_path / "missing.png"), None
    source = write(tmp_path / "in.parquet", image=paths)
    asked: list[int] = []

    def script(request: Request) -> str:
        asked.append(request.images[0].size[0])
        return "a dog"

    model = scripted(script)
    how: dict[str, Any] = {"output": tmp_path / "out", "question": "What?", "show_progress": False}
    counts = model.run_parquet(source, **how)
    assert (counts.rows, counts.failed) == (7, 1)
    rows = rows_of(tmp_path / "out")
    assert rows[1]["answer"] is None
    assert rows[1]["answer_error"].startswith("SourceNotFound")
    assert (rows[2]["answer"], rows[2]["answer_error"]) == (None, None)
    assert [row["answer"] for row in rows[3:]] == ["a dog"] * 4
    assert len(asked) == 5
    Image.new("RGB", (99, 50)).save(tmp_path / "missing.png")
    again = model.run_parquet(source, **how)
    assert (again.rows, again.failed, again.hits) == (7, 0, 6)
    assert len(asked) == 6
    assert rows_of(tmp_path / "out")[1]["answer"] == "a dog"


def test_an_interrupted_run_goes_on(tmp_path: Path, pictures: list[str]) -> None:
    source = write(tmp_path / "in.parquet", image=[str(tmp_path / name) for name in pictures])
    asked: list[int] = []

    def script(request: Request) -> Any:
        asked.append(request.images[0].size[0])
        return "a dog"

    def stop_after_three(one: Any, *_: Any) -> None:
        if one.rows >= 3:
            raise KeyboardInterrupt

    model = scripted(script)
    how: dict[str, Any] = {"output": tmp_path / "out", "question": "What?", "rows": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlm_nb.batch.parquet.Progress.show", lambda self, counts: stop_after_three(counts))
        with pytest.raises(KeyboardInterrupt):
            model.run_parquet(source, show_progress=True, **how)
    assert len(rows_of(tmp_path / "out")) == 3
    counts = model.run_parquet(source, show_progress=False, **how)
    assert (counts.rows, counts.hits) == (7, 3)
    assert len(asked) == 7
    assert len(rows_of(tmp_path / "out")) == 7


def test_what_another_question_left_is_never_taken(tmp_path: Path, pictures: list[str]) -> None:
    source = write(tmp_path / "in.parquet", image=[str(tmp_path / name) for name in pictures])
    model = scripted(fingerprint="1")
    how: dict[str, Any] = {"output": tmp_path / "out", "show_progress": False}
    model.run_parquet(source, question="What?", **how)
    with pytest.raises(OptionError, match="another question"):
        model.run_parquet(source, question="Where?", **how)
    with pytest.raises(OptionError, match="another question"):
        model.run_parquet(source, question="What?", max_new_tokens=3, **how)
    write(tmp_path / "in.parquet", image=[str(tmp_path / pictures[0])])
    assert model.run_parquet(source, question="What?", **how).hits == 0


def test_a_column_of_questions_and_images_of_every_kind(
    tmp_path: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    held = [{"bytes": (tmp_path / name).read_bytes(), "path": None} for name in pictures[:2]]
    questions = ["one?", None]
    write(tmp_path / "in" / "b" / "held.parquet", image=held, q=questions)
    write(tmp_path / "in" / "plain.parquet", image=pictures[:2], q=questions)
    model = scripted(lambda request: request.messages[-1].text)
    counts = model.run_parquet("in", output="out", questions="q", show_progress=False)
    assert (counts.rows, counts.failed) == (4, 2)
    rows = [row for part in sorted(Path("out").glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    assert [row["answer"] for row in rows] == ["one?", None, "one?", None]
    assert rows[1]["answer_error"].startswith("PromptError")


def test_boxes_and_typed_answers(tmp_path: Path) -> None:
    image = str(demo.sample_images()["shapes.png"])
    source = write(tmp_path / "in.parquet", image=[image])
    model = vlm_nb.load("demo")
    model.run_parquet(source, output=tmp_path / "boxes", show_progress=False)
    model.run_parquet(source, output=tmp_path / "one", task="locate", question="circle", show_progress=False)
    model.run_parquet(
        source,
        output=tmp_path / "typed",
        question="Is there a circle?",
        schema=["yes", "no"],
        show_progress=False,
    )
    found = rows_of(tmp_path / "boxes")[0]
    alone = model.ground(image)
    assert found["answer_grounding"] == "found"
    assert [tuple(box["bbox"]) for box in found["answer_boxes"]] == [p.bbox for p in alone.grounded_phrases]
    assert rows_of(tmp_path / "one")[0]["answer_grounding"] in ("found", "none")
    assert json.loads(rows_of(tmp_path / "typed")[0]["answer_parsed"]) in ("yes", "no")


def test_what_cannot_be_run(tmp_path: Path, pictures: list[str]) -> None:
    source = write(tmp_path / "in.parquet", image=pictures, answer=pictures)
    model = scripted()
    how: dict[str, Any] = {"output": tmp_path / "out", "show_progress": False}
    for wrong, said in (
        ({"question": "What?"}, "already"),
        ({"question": "What?", "image": "imag", "name": "a"}, "no column 'imag'; it has: image, answer"),
        ({"question": "What?", "questions": "answer", "name": "a"}, "not both"),
        ({"question": "What?", "name": "a", "rows": 0}, "from 1"),
        ({"question": "What?", "name": "a", "wrong": 1}, "unknown generation key"),
    ):
        with pytest.raises(OptionError, match=said):
            model.run_parquet(source, **how, **wrong)
    with pytest.raises(SourceNotFound):
        model.run_parquet(tmp_path / "none.parquet", question="What?", **how)
    with pytest.raises(PromptError):
        model.run_parquet(source, question=" ", name="a", **how)
    other = tmp_path / "other"
    write(other / "theirs.parquet", a=[1])
    with pytest.raises(OptionError, match="not vlm_nb's"):
        model.run_parquet(source, question="What?", name="a", output=other, show_progress=False)
