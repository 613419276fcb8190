"""The ray engine on a real cluster of this machine: two replicas of the demo model, one of them killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import vlm_nb
from vlm_nb import batch, demo
from vlm_nb.errors import ModelNotFound, OptionError, SourceError
from vlm_nb.ledger.store import Ledger

pytest.importorskip("ray")
pq = pytest.importorskip("pyarrow.parquet")
from ray_cluster import light_imports, ray_processes  # noqa: E402 - it needs what Ray brings

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\."),  # Ray Data's own context warns of itself
]
SECONDS = 300.0
ACTOR = "MapWorker"
"""What Ray Data calls the processes of its actors."""


@pytest.fixture(scope="module")
def model() -> Iterator[vlm_nb.VLM]:
    with light_imports():
        loaded = vlm_nb.load("demo", engine="ray", replicas=2, max_batch_size=4)
        yield loaded
        vlm_nb.unload(loaded)


def pids(model: vlm_nb.VLM) -> list[int]:
    """The processes of the replicas that are up now."""
    backend: Any = model.engine.backend
    return [worker.facts.pid for worker in backend._pool.workers if worker.rising is None]


def eventually(true: Callable[[], bool], seconds: float = SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def scenes(tmp_path: Path) -> list[Path]:
    """Forty pictures, all different."""
    paths = [tmp_path / f"{i:02d}.png" for i in range(40)]
    with Image.open(demo.sample_images()["shapes.png"]) as scene:
        for i, path in enumerate(paths):
            scene.convert("RGB").crop((i % 8, i // 8, scene.width, scene.height)).save(path)
    return paths


# Questions --------------------------------------------------------------------------------------------------


def test_answers_are_those_of_the_model_here(model: vlm_nb.VLM) -> None:
    images = [str(path) for path in demo.sample_images().values()]
    assert (model.info.details["replicas"], model.engine.slots) == (2, 8)
    assert len(set(pids(model))) == 2
    assert os.getpid() not in pids(model)
    there = model(images, "How many objects are there?", ledger=False, show_progress=False)
    pieces = list(model.stream(images[0], "Describe this image."))
    here = vlm_nb.load("demo", keep=True)
    alone = [here.ask(image, "How many objects are there?").raw for image in images]
    assert [outcome.unwrap().raw for outcome in there] == alone
    assert "".join(pieces) == here.ask(images[0], "Describe this image.").raw
    assert len(pieces) > 1
    vlm_nb.unload(here)


def test_a_replica_killed_in_mid_run_costs_no_row(
    model: vlm_nb.VLM, scenes: list[Path], tmp_path: Path
) -> None:
    victim = pids(model)[0]
    jobs = [model.job(str(path), None, "caption", min_new_tokens=150, max_new_tokens=200) for path in scenes]
    positions: list[int] = []
    killed = False
    how: dict[str, Any] = {"ledger": tmp_path / "ledger.sqlite3", "show_progress": False}
    for position, outcome in batch.stream(model, jobs, **how):
        positions.append(position)
        assert outcome.error is None
        assert outcome.result is not None
        assert outcome.result.source == str(scenes[position])
        if not killed:
            os.kill(victim, signal.SIGKILL)
            killed = True
    assert sorted(positions) == list(range(len(scenes)))
    book = Ledger(tmp_path / "ledger.sqlite3")
    assert book.count() == len(scenes)
    book.close()


def test_a_bad_image_fails_alone(model: vlm_nb.VLM, scenes: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    paths = [str(scenes[0]), str(tmp_path / "broken.png"), str(scenes[1])]
    outcomes = model(paths, "What colour is the circle?", ledger=False, show_progress=False)
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error, SourceError)


def test_cancelling_stops_the_replica(model: vlm_nb.VLM, scenes: list[Path]) -> None:
    request = model.asker.prepare(
        model.job(str(scenes[0]), "Describe this image.", min_new_tokens=900, max_new_tokens=1000)
    ).request
    tickets = [model.engine.submit(request) for _ in range(3)]
    next(tickets[0].events())
    for ticket in tickets:
        ticket.cancel()
    assert {ticket.result(SECONDS).usage.finish_reason for ticket in tickets} == {"cancelled"}
    assert tickets[0].result(SECONDS).text
    assert model.ask(str(scenes[0]), "How many objects are there?").raw


# Big tables -------------------------------------------------------------------------------------------------


def test_parquet_to_parquet_with_a_worker_killed(
    model: vlm_nb.VLM, scenes: list[Path], tmp_path: Path
) -> None:
    import pyarrow as pa

    images = [str(path) for path in scenes]
    images[7] = str(tmp_path / "missing.png")
    pq.write_table(pa.table({"image": images, "n": list(range(40))}), tmp_path / "in.parquet")
    before = {one.pid for one in ray_processes()}
    killed: list[int] = []

    def kill_one() -> None:
        """Kill a process that came up for the run, once the run has its first part."""
        eventually(lambda: any((tmp_path / "out").glob("*.parquet")))
        for one in ray_processes(ACTOR)[:1]:
            killed.append(one.pid)
            one.kill()

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    how: dict[str, Any] = {"output": tmp_path / "out", "task": "caption", "rows": 4, "show_progress": False}
    counts = model.run_parquet(tmp_path / "in.parquet", **how, min_new_tokens=100, max_new_tokens=150)
    killer.join()
    assert killed
    assert not before & set(killed)
    assert (counts.rows, counts.failed) == (40, 1)
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["n"] for row in rows] == list(range(40))
    assert [row["n"] for row in rows if row["answer"] is None] == [7]
    assert rows[7]["answer_error"].startswith("SourceNotFound")
    assert model.ask(str(scenes[0]), "How many objects are there?").raw  # the replicas are back
    again = model.run_parquet(tmp_path / "in.parquet", **how, min_new_tokens=100, max_new_tokens=150)
    assert (again.rows, again.hits, again.failed) == (40, 39, 1)


def test_an_interrupted_table_leaves_its_parts_and_no_actor(
    model: vlm_nb.VLM, scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"image": [str(path) for path in scenes]}), tmp_path / "in.parquet")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    how: dict[str, Any] = {"output": tmp_path / "out", "task": "caption", "rows": 4}
    with monkeypatch.context() as patch:
        patch.setattr("vlm_nb.batch.parquet.Progress.show", interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.run_parquet(tmp_path / "in.parquet", show_progress=True, **how)
    parts = len(list((tmp_path / "out").glob("*.parquet")))
    assert parts >= 1
    assert eventually(lambda: not ray_processes(ACTOR))
    counts = model.run_parquet(tmp_path / "in.parquet", show_progress=False, **how)
    assert (counts.rows, counts.failed) == (40, 0)
    assert counts.hits >= 4 * parts


# Loading and unloading --------------------------------------------------------------------------------------


def test_unloading_leaves_no_process(model: vlm_nb.VLM) -> None:
    """Last but for those that load their own: the cluster ends with its last model."""
    assert ray_processes()
    vlm_nb.unload(model)
    import ray

    assert not ray.is_initialized()
    assert eventually(lambda: not ray_processes(), 30)


def test_a_model_that_cannot_be_loaded_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    with light_imports(), pytest.raises(ModelNotFound):
        vlm_nb.load(str(tmp_path / "none"), engine="ray")
    assert eventually(lambda: not ray_processes(), 30)


def test_a_cluster_of_this_machine_that_is_too_small_says_so() -> None:
    with light_imports(), pytest.raises(OptionError, match="2 replicas need 2 GPU, the cluster has 0"):
        vlm_nb.load("demo", engine="ray", replicas=2, gpus_per_replica=1)
    assert eventually(lambda: not ray_processes(), 30)
