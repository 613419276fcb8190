"""The contract of every engine, for vLLM in this process. Runs inside vLLM's own environment only.

`test_contract_of_servers.py` starts it there:  python -m pytest -W ignore tests/servers/vllm_in_process.py
"""

from __future__ import annotations

import os

import pytest
from test_engine_contract import *  # noqa: F403
from test_engine_contract import Case

from vlm_nb.engines.spec import LoadSpec


@pytest.fixture(scope="module")
def case() -> Case:
    spec = LoadSpec(
        model=os.environ["VLM_NB_TEST_MODEL"],
        engine="vllm",
        dtype="float32",
        max_model_len=1024,
        max_batch_size=8,
        engine_args={"enforce_eager": True},
    )
    return Case(spec, long=900, bad=("x" * 4000, {}))
