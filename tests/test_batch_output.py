"""``output="rows.jsonl"`` and ``run_jsonl``: every finished row a line, and a call again goes on."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import picture, picture_files, scripted

from vlm_nb.errors import OptionError, SourceNotFound
from vlm_nb.model import VLM
from vlm_nb.request import Request

ASKED: list[str] = []


@pytest.fixture
def model() -> Iterator[VLM]:
    def answer(request: Request) -> Any:
        ASKED.append(request.messages[-1].text)
        return 1 / 0 if "fail" in ASKED[-1] else f"to {ASKED[-1]}"

    ASKED.clear()
    vlm = scripted(answer, fingerprint="echo")
    yield vlm
    vlm.unload()


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return picture_files(tmp_path, 4)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_finished_rows_are_appended(model: VLM, images: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    model(source=[*images, tmp_path / "gone.png"], user_prompt="q", output=out, show_progress=False)
    found = sorted(rows(out), key=lambda row: row["index"])
    assert [row["index"] for row in found] == [0, 1, 2, 3, 4]
    assert [row.get("caption") for row in found] == ["to q"] * 4 + [None]
    assert found[4]["error"].startswith("SourceNotFound")
    assert found[0]["error"] is None
    assert found[0]["image_size"] == [60, 60]


def test_the_same_call_again_adds_nothing_and_computes_nothing(
    model: VLM, images: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    for ledger in (None, False, False):  # the output alone is enough to go on
        outcomes = model(source=images, user_prompt="q", output=out, ledger=ledger, show_progress=False)
        assert [o.unwrap().caption for o in outcomes] == ["to q"] * 4
    assert len(rows(out)) == 4
    assert len(ASKED) == 4


def test_a_line_cut_by_a_kill_is_removed_and_computed_again(
    model: VLM, images: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    model(source=images, user_prompt="q", output=out, ledger=False, show_progress=False)
    whole = out.read_bytes()
    out.write_bytes(whole[:-25])
    model(source=images, user_prompt="q", output=out, ledger=False, show_progress=False)
    assert sorted(row["index"] for row in rows(out)) == [0, 1, 2, 3]
    assert len(ASKED) == 5


def test_a_file_that_is_not_ours_is_refused(model: VLM, images: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "notes.txt"
    out.write_text("dear diary\n")
    with pytest.raises(OptionError, match=r"notes\.txt exists and is no output"):
        model(source=images, user_prompt="q", output=out, show_progress=False)
    assert out.read_text() == "dear diary\n"


def test_an_output_that_cannot_grow_is_one_warning(model: VLM, images: list[Path]) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    from vlm_nb.batch.output import OutputFile

    out = images[0].parent / "o.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OutputFile, "append", lambda *_: full.write_text("x" * 100_000))
        with pytest.warns(UserWarning, match="output file cannot be"):
            outcomes = model(source=images, user_prompt="q", output=out, show_progress=False)
    assert all(outcome.error is None for outcome in outcomes)


# Conversations ----------------------------------------------------------------------------------------------


def data_uri() -> str:
    stream = io.BytesIO()
    picture().save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def openai_line(text: str, image: str, **extra: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": image}}]
    return {"messages": [{"role": "user", "content": parts}], **extra}


def oumi_line(text: str, path: Path) -> dict[str, Any]:
    parts = [{"type": "image_path", "content": str(path)}, {"type": "text", "content": text}]
    return {
        "conversation_id": "oumi-1",
        "messages": [{"role": "user", "content": parts}],
        "metadata": {"a": 1},
    }


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return path


def test_run_jsonl_answers_each_line(model: VLM, images: list[Path], tmp_path: Path) -> None:
    batch_line = {
        "custom_id": "c-1",
        "method": "POST",
        "body": openai_line("batch", data_uri(), max_tokens=1),
    }
    given = write(
        tmp_path / "in.jsonl",
        openai_line("openai", data_uri(), id=7),
        oumi_line("oumi", images[0]),
        batch_line,
        "",
        "{broken",
        {"messages": [{"role": "user", "content": "text only"}]},
        openai_line("missing", str(tmp_path / "gone.png")),
        {"no": "messages"},
    )
    counts = model.run_jsonl(given, output=tmp_path / "out.jsonl", show_progress=False)
    assert (counts.rows, counts.failed) == (7, 3)
    found = sorted(rows(tmp_path / "out.jsonl"), key=lambda row: row["index"])
    assert found[0]["id"] == 7
    assert found[0]["messages"][-1] == {"role": "assistant", "content": "to openai"}
    assert found[0]["messages"][0]["role"] == "user"
    assert found[0]["answer"]["caption"] == "to openai"
    assert (found[1]["conversation_id"], found[1]["metadata"]) == ("oumi-1", {"a": 1})
    assert found[1]["answer"]["source"].endswith("0.png")
    assert found[2]["custom_id"] == "c-1"
    assert found[2]["answer"]["caption"] == "to", "max_tokens=1 of its line"
    assert "line 5" in found[3]["error"]
    assert found[4]["answer"]["caption"] == "to text only"
    assert found[5]["error"].startswith("SourceNotFound")
    assert found[6]["error"].startswith("PromptError")


@pytest.mark.parametrize("ledger", [None, False])
def test_run_jsonl_resumes(model: VLM, tmp_path: Path, ledger: Any) -> None:
    lines = [openai_line(f"question {n}", data_uri()) for n in range(20)]
    out = tmp_path / "out.jsonl"
    model.run_jsonl(write(tmp_path / "in.jsonl", *lines[:12]), output=out, ledger=ledger, show_progress=False)
    counts = model.run_jsonl(
        write(tmp_path / "in.jsonl", *lines), output=out, ledger=ledger, show_progress=False
    )
    assert (counts.rows, counts.hits) == (20, 12)
    assert len(ASKED) == 20
    assert sorted(row["index"] for row in rows(out)) == list(range(20))


def test_run_jsonl_option_errors(model: VLM, tmp_path: Path) -> None:
    given = write(tmp_path / "in.jsonl", openai_line("x", data_uri()))
    with pytest.raises(SourceNotFound):
        model.run_jsonl(tmp_path / "none.jsonl", output=tmp_path / "o.jsonl")
    with pytest.raises(OptionError, match="input file itself"):
        model.run_jsonl(given, output=given)
    with pytest.raises(OptionError, match="max_new_tokens"):
        model.run_jsonl(given, output=tmp_path / "o.jsonl", max_new_token=3)


def test_call_settings_win_over_the_line_s(model: VLM, tmp_path: Path) -> None:
    given = write(tmp_path / "in.jsonl", openai_line("a b c", data_uri(), max_tokens=1))
    model.run_jsonl(given, output=tmp_path / "o.jsonl", max_new_tokens=3, show_progress=False)
    assert rows(tmp_path / "o.jsonl")[0]["answer"]["caption"] == "to a b"
