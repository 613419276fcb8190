"""The contract of every engine, for the openai engine with real servers behind it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import environment
from test_engine_contract import *  # noqa: F403
from test_engine_contract import Case

from vlm_nb.engines.spec import LoadSpec

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=["transformers serve", "vllm"])
def case(request: pytest.FixtureRequest, models: dict[str, Path]) -> Iterator[Case]:
    if request.param == "vllm":
        url = request.getfixturevalue("vllm_qwen")
        spec = LoadSpec(model=str(models["qwen"]), engine="openai", base_url=url)
        lasting = {"min_new_tokens": 900, "cut_repeats": False}
        yield Case(spec, long=900, lasting=lasting, bad=("x" * 4000, {}))
        return
    url = request.getfixturevalue("transformers_serve")
    spec = LoadSpec(
        model=str(models["llava"]),
        engine="openai",
        base_url=url,
        max_concurrency=4,
        engine_args={"server": "transformers", "retries": 1},
    )
    yield Case(spec, long=400, bad=("x", {"num_beams": 2}), seeds=False)


def test_vllm_in_its_own_process(models: dict[str, Path]) -> None:
    """The whole contract once more, inside vLLM's environment, with ``engine="vllm"``."""
    python = environment("vllm") / "python"
    root = Path(__file__).resolve().parents[2]
    command = [str(python), "-m", "pytest", "-W", "ignore", "-p", "no:cacheprovider", "-o", "timeout=900"]
    settings = {**os.environ, "VLM_NB_TEST_MODEL": str(models["qwen"]), "VLLM_CPU_KVCACHE_SPACE": "1"}
    command.append("tests/servers/vllm_in_process.py")
    done = subprocess.run(command, cwd=root, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
