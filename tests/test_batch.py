"""The batch runner: order, duplicates, lazy pulling, errors in their own place, interrupts, progress."""

from __future__ import annotations

import dataclasses
import gc
import re
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scripted import picture, scripted

from vlm_nb import batch
from vlm_nb.asking import Job
from vlm_nb.batch import pipeline
from vlm_nb.batch.progress import Progress, summary
from vlm_nb.batch.ready import ReadyRows
from vlm_nb.errors import (
    Cancelled,
    ModelUnloaded,
    OptionError,
    OutOfMemory,
    SourceError,
    SourceNotFound,
    VLMError,
)
from vlm_nb.model import VLM
from vlm_nb.request import Request


def echo(request: Request) -> str:
    return request.messages[-1].text


def numbered(model: VLM, count: int, size: tuple[int, int] = (56, 56)) -> Iterator[Job]:
    """Jobs whose answer, with ``echo``, is their number."""
    for number in range(count):
        job = model.job(Image.new("RGB", size, (number % 256, number // 256 % 256, 7)), f"row {number}")
        yield dataclasses.replace(job, interactive=False)


@pytest.fixture
def model() -> Iterator[VLM]:
    vlm = scripted(echo)
    yield vlm
    vlm.unload()


def test_answers_come_in_the_caller_s_order(model: VLM) -> None:
    outcomes = batch.run(model, numbered(model, 100), show_progress=False)
    assert [o.unwrap().caption for o in outcomes] == [f"row {i}" for i in range(100)]
    assert [o.unwrap().index for o in outcomes] == list(range(100))


def test_no_jobs_give_no_outcomes(model: VLM) -> None:
    assert batch.run(model, [], show_progress=False) == []


def test_stream_yields_every_position_once(model: VLM) -> None:
    seen = [position for position, _ in batch.stream(model, numbered(model, 50), show_progress=False)]
    assert sorted(seen) == list(range(50))


def test_an_error_among_the_jobs_stays_in_its_place(model: VLM) -> None:
    jobs: list[Job | VLMError] = list(numbered(model, 3))
    jobs.insert(1, SourceError("not readable", source="x.png"))
    outcomes = batch.run(model, jobs, show_progress=False)
    assert [o.error is None for o in outcomes] == [True, False, True, True]
    assert outcomes[1].error is not None
    assert (outcomes[1].error.source, outcomes[1].error.index) == ("x.png", 1)


@given(st.lists(st.sampled_from(["good", "missing", "corrupt", "script", "memory"]), max_size=30))
@settings(max_examples=25, deadline=None)
def test_one_bad_row_never_costs_another(kinds: list[str]) -> None:
    def answer(request: Request) -> Any:
        kind = request.messages[-1].text
        if kind.startswith("memory"):
            return OutOfMemory("out of memory: this image needs more than there is")
        return 1 / 0 if kind.startswith("script") else kind

    sources = {"missing": Path("nowhere.png"), "corrupt": b"\x89PNG but no more"}
    model = scripted(answer)
    try:
        jobs: list[Job | VLMError] = []
        for number, kind in enumerate(kinds):
            try:
                jobs.append(model.job(sources.get(kind) or picture(), f"{kind} {number}"))
            except VLMError as error:
                jobs.append(error)
        outcomes = batch.run(model, jobs, show_progress=False)
    finally:
        model.unload()
    for number, (kind, (result, error)) in enumerate(zip(kinds, outcomes, strict=True)):
        if kind == "good":
            assert result is not None
            assert result.caption == f"good {number}"
        else:
            assert error is not None
            assert error.index == number


def test_failures_in_a_tenth_of_the_rows() -> None:
    model = scripted(lambda request: 1 / 0 if echo(request).endswith("7") else echo(request))
    outcomes = batch.run(model, numbered(model, 200), show_progress=False)
    assert [i for i, o in enumerate(outcomes) if o.error] == list(range(7, 200, 10))
    model.unload()


def test_identical_rows_are_computed_once(tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    def answer(request: Request) -> str:
        asked[echo(request)] += 1
        time.sleep(0.002)
        return echo(request)

    model = scripted(answer)
    for name in ("a.png", "b.png"):
        picture().save(tmp_path / name)
    jobs = [model.job(tmp_path / ("a.png" if i % 2 else "b.png"), f"q{i % 3}") for i in range(300)]
    outcomes = batch.run(model, jobs, show_progress=False)
    assert asked == {"q0": 1, "q1": 1, "q2": 1}
    assert [o.unwrap().caption for o in outcomes] == [f"q{i % 3}" for i in range(300)]
    names = [Path(o.unwrap().source or "").name for o in outcomes[:2]]
    assert names == ["b.png", "a.png"], "each row keeps its own source"
    assert [o.unwrap().index for o in outcomes] == list(range(300))
    model.unload()


def test_identical_bad_rows_name_their_own_file(model: VLM, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"<html>not an image</html>")
    jobs = [model.job(tmp_path / name, "q") for name in ("a.png", "b.png", "a.png")]
    outcomes = batch.run(model, jobs, show_progress=False)
    for name, outcome in zip(("a.png", "b.png", "a.png"), outcomes, strict=True):
        assert isinstance(outcome.error, SourceError)
        assert "HTML" in str(outcome.error)
        assert Path(outcome.error.source or "").name == name
        assert "a.png" not in str(outcome.error) or name == "a.png"


def test_sampled_rows_are_drawn_one_by_one() -> None:
    model = scripted([str(i) for i in range(20)])
    jobs = [model.job(picture(), "q", temperature=0.7) for _ in range(20)]
    outcomes = batch.run(model, jobs, show_progress=False)
    assert len({o.unwrap().caption for o in outcomes}) == 20
    model.unload()


def test_jobs_are_pulled_lazily_and_images_let_go() -> None:
    alive, most, pulled = [0], 0, 0

    def gone() -> None:
        alive[0] -= 1

    def jobs(model: VLM) -> Iterator[Job]:
        nonlocal most, pulled
        for number in range(2000):
            image = Image.new("RGB", (28, 28), (number % 256, number // 256, 0))
            weakref.finalize(image, gone)
            alive[0] += 1
            pulled += 1
            most = max(most, alive[0])
            yield model.job(image, f"row {number}")
            del image

    model = scripted(echo, slots=4)
    ahead = 0
    for number, _ in enumerate(batch.stream(model, jobs(model), show_progress=False)):
        ahead = max(ahead, pulled - number)
    model.unload()
    assert pulled == 2000
    assert most < 700, "images of finished rows must be let go"
    assert ahead <= 2 * pipeline.OPEN_ROWS


def test_the_engine_holds_twice_its_slots_at_most() -> None:
    most = 0
    model = scripted("one two three", slots=3)
    with batch.Run(model, numbered(model, 60), batch.RunOptions(show_progress=False)) as rows:
        for _ in rows:
            most = max(most, len(rows._pipeline._tickets))
    assert most <= 6
    model.unload()


def test_rows_of_about_one_size_go_together() -> None:
    ready = ReadyRows()
    for area in (100, 900, 110, 905, 95, 880):
        ready.add(SimpleNamespace(area=area))  # type: ignore[arg-type]
    assert [r.area for r in ready.take(3)] == [100, 110, 95]
    assert [r.area for r in ready.take(3)] == [900, 905, 880]
    assert len(ready) == 0


def test_several_images_in_one_row(model: VLM) -> None:
    outcomes = batch.run(model, [model.job([picture(), picture(60, 60)], "compare")], show_progress=False)
    assert outcomes[0].unwrap().caption == "compare"


def test_a_model_unloaded_meanwhile_ends_the_rows_with_that() -> None:
    model = scripted("word " * 50, delay=0.002)
    outcomes = []
    for position, outcome in batch.stream(model, numbered(model, 300), show_progress=False):
        outcomes.append((position, outcome))
        if len(outcomes) == 5:
            threading.Thread(target=model.unload).start()
    assert len(outcomes) == 300
    assert isinstance(outcomes[-1][1].error, ModelUnloaded)


def test_an_unloaded_model_is_the_call_s_error() -> None:
    model = scripted("x")
    model.unload()
    with pytest.raises(ModelUnloaded, match="%vlm load"):
        batch.run(model, [], show_progress=False)


def test_an_unknown_option_names_the_nearest(model: VLM) -> None:
    with pytest.raises(OptionError, match="ledger"):
        batch.run(model, [], ledgr="x")


def test_leaving_the_stream_early_cancels_and_ends_the_threads(model: VLM) -> None:
    def preparing() -> int:
        return sum(t.name.startswith("vlm_nb-prepare") for t in threading.enumerate())

    before = preparing()
    rows = batch.stream(model, numbered(model, 500), show_progress=False)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while preparing() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert preparing() <= before
    assert batch.run(model, numbered(model, 3), show_progress=False)[2].unwrap().caption == "row 2"


class Interrupting:
    """Raises KeyboardInterrupt in the caller's thread, as Ctrl+C does, once ``after`` rows were pulled."""

    def __init__(self, jobs: Iterator[Job], after: int, total: int) -> None:
        self.jobs, self.after, self.total, self.pulled = jobs, after, total, 0

    def __iter__(self) -> Iterator[Job]:
        return self

    def __next__(self) -> Job:
        self.pulled += 1
        if self.pulled == self.after:
            raise KeyboardInterrupt
        return next(self.jobs)


def test_interrupt_outside_ipython_cancels_and_raises() -> None:
    model = scripted("word " * 20, delay=0.001)
    with pytest.raises(KeyboardInterrupt):
        batch.run(model, Interrupting(numbered(model, 500), 200, 500), show_progress=False)
    assert batch.run(model, numbered(model, 1), show_progress=False)[0].error is None
    model.unload()


def test_interrupt_in_ipython_returns_what_is_finished(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batch, "in_ipython", lambda: True)
    model = scripted(echo, delay=0.001)
    jobs = Interrupting(numbered(model, 499), 300, 500)
    with pytest.warns(UserWarning, match="interrupted: .* of 499 rows are answered. Run the cell again"):
        outcomes = batch.run(model, jobs, show_progress=True, total=499)
    model.unload()
    assert len(outcomes) == 499
    done = [o for o in outcomes if o.error is None]
    left = [o for o in outcomes if o.error is not None]
    assert done
    assert left
    assert all(isinstance(o.error, Cancelled) for o in left)
    assert "Run the same" in str(outcomes[-1].error)
    assert all(o.unwrap().caption == f"row {i}" for i, o in enumerate(outcomes) if o.error is None)
    line = capsys.readouterr().err.strip()
    assert re.fullmatch(rf"{len(done)} of 499 rows in .* rows/s; stopped", line), line


def test_an_interrupt_without_a_ledger_promises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "in_ipython", lambda: True)
    model = scripted(echo, delay=0.001)
    jobs = Interrupting(numbered(model, 499), 300, 500)
    with pytest.warns(UserWarning, match=r"of 499 rows are answered. The ledger is off"):
        batch.run(model, jobs, show_progress=False, total=499, ledger=False)
    model.unload()


def test_a_second_interrupt_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def again(self: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "in_ipython", lambda: True)
    monkeypatch.setattr(batch.Run, "halt", again)
    model = scripted(echo)
    with pytest.raises(KeyboardInterrupt):
        batch.run(model, Interrupting(numbered(model, 100), 50, 100), show_progress=False)
    model.unload()


def test_errors_keep_no_frames(model: VLM, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    error = batch.run(model, [model.job(tmp_path / "bad.png", "q")], show_progress=False)[0].error
    link: BaseException | None = error
    while link is not None:
        assert link.__traceback__ is None
        link = link.__cause__ or link.__context__


def test_a_list_call_keeps_no_images(model: VLM) -> None:
    image = picture()
    alive = weakref.ref(image)
    outcomes = model(source=[image], user_prompt="q", show_progress=False)
    del image
    gc.collect()
    assert outcomes[0].unwrap().preview is None
    assert alive() is None


def test_progress_writes_plain_lines_where_there_is_no_front_end(
    capsys: pytest.CaptureFixture[str], model: VLM
) -> None:
    batch.run(model, numbered(model, 20), show_progress=True, total=20)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("20 rows in ")


def test_progress_tells_rate_failures_and_what_was_known() -> None:
    counts = batch.Counts(rows=1200, hits=1000, failed=3)
    assert (
        summary(counts, 5000, 10.0)
        == "1,200 of 5,000 rows in 10.0 s, 19.7 rows/s; 1,000 already known, 3 failed"
    )
    assert summary(batch.Counts(rows=5, hits=5), 5, 10.0) == "5 rows in 10.0 s; 5 already known"
    assert (
        summary(batch.Counts(rows=9, hits=5, failed=4), 9, 1.0)
        == "9 rows in 1.0 s; 5 already known, 4 failed"
    )
    stopped = batch.Counts(rows=102, stopped=True)
    assert summary(stopped, 1500, 3.0) == "102 of 1,500 rows in 3.0 s, 34.0 rows/s; stopped"


def test_a_bar_on_a_terminal_leaves_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress(10)
    progress.show(batch.Counts(rows=5, failed=1))
    progress.close(batch.Counts(rows=10, failed=1))
    assert capsys.readouterr().err.splitlines()[-1].endswith("1 failed")


def test_worker_threads_print_nothing(model: VLM, capsys: pytest.CaptureFixture[str]) -> None:
    batch.run(model, numbered(model, 50), show_progress=False)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_missing_files_say_so(model: VLM, tmp_path: Path) -> None:
    path = tmp_path / "gone.png"
    picture().save(path)
    job = model.job(path, "q")
    path.unlink()
    error = batch.run(model, [job], show_progress=False)[0].error
    assert isinstance(error, SourceNotFound)
    assert "gone.png" in str(error)
