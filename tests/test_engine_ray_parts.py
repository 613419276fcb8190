"""The ray engine without a cluster, and without Ray: its keywords, its words, what it never shows."""

from __future__ import annotations

from typing import Any

import pytest

from vlm_nb.engines import make_backend
from vlm_nb.engines.base import Engine
from vlm_nb.engines.cluster.failures import said
from vlm_nb.engines.cluster.options import inner_spec
from vlm_nb.engines.ray import RayBackend
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.errors import GenerationError, OptionError

SECONDS = 30.0


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"replicas": 0}, "whole number"),
        ({"gpus_per_replica": 1.5}, "a share of one GPU"),
        ({"address": "ray://h:10001"}, "streams no answers"),
        ({"engine_args": {"engine": "openai"}}, "unknown engine in a replica 'openai'"),
        ({"engine_args": {"max_restarts": -2}}, "-1 for always"),
    ],
)
def test_keywords_that_make_no_sense(keywords: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        RayBackend(LoadSpec.from_keywords("m", engine="ray", **keywords))


def test_what_ray_says_is_one_plain_line() -> None:
    told = (
        "The actor died, \x1b[36mray::Replica\x1b[39m\n  File x\nModuleNotFoundError: No module named 'x'\n\n"
    )
    assert said(RuntimeError(told)) == "ModuleNotFoundError: No module named 'x'"
    assert said(RuntimeError()) == "RuntimeError"


def test_keys_travel_but_never_show() -> None:
    spec = LoadSpec.from_keywords("m", engine="ray", token="hf_secret", api_key="sk-secret")
    backend = RayBackend(spec)
    assert "secret" not in repr(spec) + repr(backend.__dict__)


def test_an_engine_that_never_opened_answers_with_an_error() -> None:
    engine = Engine(RayBackend(LoadSpec(model="m", engine="ray")), "ray")
    with pytest.raises(GenerationError):
        engine.call(engine.backend.step).result(SECONDS)
    assert engine.close()


def test_a_replica_loads_what_is_not_the_clusters() -> None:
    args = {"engine": "vllm", "num_cpus": 4, "max_restarts": -1, "enforce_eager": True}
    spec = LoadSpec.from_keywords(
        "m", engine="ray", replicas=2, gpus_per_replica=2, address="h:1", tensor_parallel=2, engine_args=args
    )
    inner = inner_spec(spec)
    assert (inner.engine, inner.tensor_parallel, inner.engine_args) == ("vllm", 2, {"enforce_eager": True})
    assert (inner.replicas, inner.gpus_per_replica, inner.address) == (None, None, None)
    make_backend(inner)


def test_a_gguf_file_is_not_sent_to_the_replicas() -> None:
    with pytest.raises(OptionError, match="llama-server"):
        make_backend(LoadSpec(model="q.gguf", engine="ray"))
