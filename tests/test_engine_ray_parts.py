"""The ray engine without a cluster, and without Ray: its keywords, its words, what it never shows."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from vlm_nb.engines import make_backend
from vlm_nb.engines.base import Engine
from vlm_nb.engines.cluster import joining
from vlm_nb.engines.cluster.failures import said
from vlm_nb.engines.cluster.options import ClusterOptions, inner_spec
from vlm_nb.engines.ray import RayBackend
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.errors import GenerationError, LoadError, OptionError

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


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A Ray that has joined the cluster at 10.0.0.5:6379 by itself."""
    context = SimpleNamespace(gcs_address="10.0.0.5:6379")
    ray = SimpleNamespace(is_initialized=lambda: True, get_runtime_context=lambda: context)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(joining, "_users", 0)
    monkeypatch.setattr(joining, "_ours", False)
    return ray


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize("address", [None, "auto", "10.0.0.5:6379", "127.0.0.1:6379", "localhost:6379"])
def test_the_joined_cluster_is_used(address: str | None) -> None:
    joining.join(ClusterOptions(address=address))


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize("address", ["local", "10.0.0.5:6380", "127.0.0.1:6380"])
def test_another_cluster_than_the_joined_is_an_error(address: str) -> None:
    with pytest.raises(LoadError, match=r"joined the Ray cluster at 10\.0\.0\.5:6379.*Leave address= out"):
        joining.join(ClusterOptions(address=address))


@pytest.mark.usefixtures("joined")
def test_another_host_may_be_another_name_of_the_joined_cluster() -> None:
    with pytest.warns(UserWarning, match=r"the Ray cluster at 10\.0\.0\.5:6379, which .* is used"):
        joining.join(ClusterOptions(address="10.0.0.6:6379"))


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
