"""Real inference servers on loopback, started once a session. ``install.sh`` builds their environments.

Without an environment a server's tests are skipped with one line that says how to build it; with
``VLM_NB_REQUIRE_SERVERS=1`` (as in CI) they fail instead.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vlm_nb import demo

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 300.0


def environment(server: str) -> Path:
    """The folder of a server's programs; skips, or fails, where it could not be installed."""
    home = Path(os.environ.get("VLM_NB_SERVERS", ROOT / ".venv-servers"))
    if (home / server / ".ready").exists():
        return home / server / "bin"
    failed = home / f"{server}.failed"
    why = failed.read_text().strip().splitlines()[-1:] if failed.exists() else ["never tried"]
    line = f"NO {server.upper()} SERVER HERE ({' '.join(why)}): bash tests/servers/install.sh {server}"
    if os.environ.get("VLM_NB_REQUIRE_SERVERS"):
        pytest.fail(line, pytrace=False)
    pytest.skip(line)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def started(command: list[str], port: int, health: str, log: Path, **variables: str) -> Iterator[str]:
    """Run a server until it answers ``health``; yields its base URL and ends it, children included."""
    unwind_when_ended()
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **variables}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=settings,
            cwd=log.parent,
            start_new_session=True,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}{health}", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)


def unwind_when_ended() -> None:
    """A test run that is ended from outside ends its servers too: SIGTERM unwinds like an exit."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            pytest.fail(
                f"the server did not start:\n{log.read_text(errors='replace')[-3000:]}", pytrace=False
            )
        time.sleep(0.3)


@contextmanager
def vllm(model: Path, folder: Path) -> Iterator[str]:
    """A vLLM server in fp32, which may read images from ``folder``."""
    port = free_port()
    command = [
        *(str(environment("vllm") / "python"), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model), "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"),
        *("--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "16"),
        *("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}'),
        *("--limit-mm-per-prompt", '{"image":2,"video":0}', "--allowed-local-media-path", str(folder)),
    ]
    with started(command, port, "/health", folder / "vllm.log", VLLM_CPU_KVCACHE_SPACE="1") as url:
        yield url


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random checkpoints: "llava" and "qwen" (vLLM needs heads of at least 32)."""
    from engine_models import make_llava, make_qwen

    folder = tmp_path_factory.mktemp("models")
    return {
        "llava": make_llava(folder / "llava"),
        "qwen": make_qwen(folder / "qwen", hidden=128, context=1024),
    }


@pytest.fixture(scope="session")
def transformers_serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a ``transformers serve``, which loads any model by its folder."""
    port, folder = free_port(), tmp_path_factory.mktemp("transformers")
    command = [
        *(
            str(environment("transformers") / "transformers"),
            "serve",
            "--device",
            "cpu",
            "--dtype",
            "float32",
        ),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    with started(command, port, "/health", folder / "transformers.log", HF_HOME=str(folder / "hf")) as url:
        yield url


@pytest.fixture(scope="module")
def vllm_qwen(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a vLLM server with the random Qwen2.5-VL; an idle one still polls, so it ends early."""
    with vllm(models["qwen"], tmp_path_factory.mktemp("vllm")) as url:
        yield url


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The demo model's folder."""
    weights = demo.weights_path()
    if not (weights / "model.safetensors").exists():
        pytest.skip("the demo model's weights are not in this checkout")
    return weights


@pytest.fixture(scope="session")
def vllm_demo(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """(base URL, folder for images) of a vLLM server with the demo model."""
    folder = tmp_path_factory.mktemp("vllm-demo")
    with vllm(demo_model, folder) as url:
        yield url, folder


def pytest_report_header() -> str:
    """Say which servers there are, whatever the tests do."""
    home = Path(os.environ.get("VLM_NB_SERVERS", ROOT / ".venv-servers"))
    there = [name for name in ("transformers", "vllm") if (home / name / ".ready").exists()]
    return f"real servers: {', '.join(there) or 'none (bash tests/servers/install.sh)'}"
