"""Loading from a hub: a real server on loopback, the real huggingface_hub, tiny real checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_models import make_qwen
from hub_server import COMMIT, Hub, running_hub

SECRET = "hf_SECRETsecretSECRET"
Load = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_qwen(tmp_path_factory.mktemp("checkpoint"), hidden=64, layers=4)


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def load(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    """Load in one process that talks to the hub, with an empty cache."""
    home = tmp_path_factory.mktemp("hf")
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(home),
        "HF_HUB_DOWNLOAD_TIMEOUT": "2",
        "HF_HUB_ETAG_TIMEOUT": "2",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE"):
        environment.pop(name, None)
    worker = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("hub_worker.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )

    def send(model: str, **options: Any) -> dict[str, Any]:
        worker.stdin.write(json.dumps({"model": model, **options}) + "\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
        assert line, worker.stderr.read()[-2000:]
        answer: dict[str, Any] = json.loads(line)
        assert SECRET not in line
        return answer

    yield send
    worker.stdin.close()
    worker.wait(20)
    assert SECRET not in worker.stderr.read()
    worker.stdout.close()
    worker.stderr.close()


def test_a_model_is_downloaded_with_progress_and_then_comes_from_the_cache(hub, load, checkpoint):
    repo = hub.add("org/normal", checkpoint)
    first = load("org/normal")
    assert first.get("error") is None, first
    assert first["revision"] == first["fingerprint"] == COMMIT
    assert first["tokens"] > 0
    weights = len(repo.files["model.safetensors"])
    byte_reports = [report for report in first["reports"] if report[2] == weights]
    assert byte_reports[-1][1] == weights
    assert [r[1] for r in byte_reports] == sorted(r[1] for r in byte_reports)
    repo.served.clear()
    assert load("org/normal")["tokens"] == first["tokens"]
    assert not [entry for entry in repo.served if entry[0] == "GET"]


def test_only_what_is_needed_is_downloaded(hub, load, checkpoint, tmp_path):
    repo = hub.add("org/crowded", checkpoint)
    repo.files |= {
        "pytorch_model.bin": b"x" * 100,
        "onnx/model.onnx": b"x",
        "run.py": b"x",
        "photo.png": b"x",
    }
    assert load("org/crowded").get("error") is None
    got = {name for method, name, _ in repo.served if method == "GET"}
    assert not got & {"pytorch_model.bin", "onnx/model.onnx", "run.py", "photo.png"}
    assert {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"} <= got


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_repository_says_how_to_get_in(hub, load, checkpoint, status):
    name = f"org/gated-{status}"
    repo = hub.add(name, checkpoint, gated=status, token="hf_right")
    for token in (None, SECRET):
        refused = load(name, token=token)
        assert refused["error"] == "ModelAccessDenied"
        assert "hf auth login" in refused["message"]
        assert name in refused["message"]
    assert not [entry for entry in repo.served if entry[0] == "GET"]
    assert load(name, token="hf_right").get("error") is None


def test_a_private_repository_looks_like_a_missing_one(hub, load):
    answer = load("org/nothing-here")
    assert answer["error"] == "ModelNotFound"
    assert "org/nothing-here" in answer["message"]


def test_a_missing_revision_is_named(hub, load, checkpoint):
    hub.add("org/revisions", checkpoint)
    answer = load("org/revisions", revision="v9")
    assert answer["error"] == "ModelNotFound"
    assert "'v9'" in answer["message"]
    assert load("org/revisions", revision=COMMIT).get("error") is None


def test_a_cut_connection_is_resumed_by_itself(hub, load, checkpoint):
    repo = hub.add("org/cut-once", checkpoint, cut_after=50_000)
    answer = load("org/cut-once")
    assert answer.get("error") is None, answer["message"]
    assert 50_000 in {start for method, name, start in repo.served if name == "model.safetensors"}


def test_a_download_cut_off_for_good_fetches_only_the_rest_the_next_time(hub, load, tmp_path):
    repo = hub.add("org/cut-off", make_qwen(tmp_path, hidden=64, layers=4, shards="200KB"))
    shards = sorted(name for name in repo.files if name.endswith(".safetensors"))
    assert len(shards) > 2
    repo.cut_file, repo.cut_after, repo.cut_for_good = shards[-1], 10_000, True
    answer = load("org/cut-off")
    assert answer["error"] == "DownloadError"
    assert "only the rest" in answer["message"]
    repo.cut_after = None
    repo.served.clear()
    assert load("org/cut-off").get("error") is None
    assert [name for method, name, _ in repo.served if method == "GET"] == [shards[-1]]


def test_a_download_can_be_cancelled(hub, load, checkpoint):
    repo = hub.add("org/slow", checkpoint, delay=0.2)
    answer = load("org/slow", cancel_after=30_000)
    assert answer["error"] == "Cancelled"
    whole = len(repo.files["model.safetensors"]) / 16384 * repo.delay
    assert answer["seconds"] < whole / 2
    repo.delay = 0.0
    assert load("org/slow").get("error") is None


def test_a_repository_of_pickles_is_refused_before_they_are_fetched(hub, load, checkpoint):
    repo = hub.add("org/pickles", checkpoint)
    repo.files["pytorch_model.bin"] = repo.files.pop("model.safetensors")
    answer = load("org/pickles")
    assert answer["error"] == "UnsafeModel"
    assert "pytorch_model.bin" not in {name for _, name, _ in repo.served}


def test_a_repository_without_a_processor_is_refused_before_its_weights_are_fetched(hub, load, checkpoint):
    repo = hub.add("org/bare", checkpoint)
    del repo.files["preprocessor_config.json"]
    answer = load("org/bare")
    assert answer["error"] == "ModelNotFound"
    assert "preprocessor_config.json" in answer["message"]
    assert "model.safetensors" not in {name for _, name, _ in repo.served}


def test_offline_takes_what_is_there_and_says_what_is_not(hub, load, checkpoint):
    hub.add("org/before", checkpoint)
    hub.add("org/never", checkpoint)
    assert load("org/before").get("error") is None
    assert load("org/before", local_files_only=True).get("error") is None
    never = load("org/never", local_files_only=True)
    assert never["error"] == "DownloadError"
    assert "online" in never["message"]
    hub.go_down()
    assert load("org/before").get("error") is None
    assert load("org/never")["error"] == "DownloadError"
