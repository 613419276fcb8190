"""A load that fails leaves the earlier model loaded, current and answering."""

from __future__ import annotations

import importlib
import shutil
import threading

import pytest
from chat_server import chat_server
from engine_helpers import noise
from engine_models import make_qwen

import vlm_nb
from vlm_nb import registry
from vlm_nb.engines import ENGINES
from vlm_nb.engines.contracts import Backend
from vlm_nb.engines.hf import devices
from vlm_nb.errors import Cancelled, LoadError, OptionError, OutOfMemory, VLMError

pytestmark = pytest.mark.usefixtures("fresh_registry")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_qwen(tmp_path_factory.mktemp("first"))


@pytest.fixture
def first(folder):
    return vlm_nb.load(str(folder), dtype="float32")


def still_there(model):
    assert registry.loaded() == [model]
    assert registry.current() is model
    assert model.ask(noise(56, 56), "what?", max_new_tokens=2).usage.new_tokens is not None


def spoiled(folder, tmp_path, how):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = copy / "model.safetensors"
    if how == "cut off":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "header cut off":
        weights.write_bytes(weights.read_bytes()[:500])
    elif how == "not safetensors":
        weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    elif how == "empty":
        weights.write_bytes(b"")
    else:
        (copy / how).unlink()
    return copy


FILES = ["cut off", "header cut off", "not safetensors", "empty", "model.safetensors", "config.json"]


@pytest.mark.parametrize("how", [*FILES, "preprocessor_config.json", "tokenizer.json"])
def test_spoiled_files(first, folder, tmp_path, how):
    with pytest.raises(LoadError):
        vlm_nb.load(str(spoiled(folder, tmp_path, how)))
    still_there(first)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("./nowhere", {}),
        ("org/mistyped", {}),
        ("x.gguf", {}),
        ("demo", {"dtype": "int3"}),
        ("demo", {"device_map": "gpu9"}),
        ("demo", {"quantisation": "4bit"}),
        ("demo", {"attn_implementation": "flash_attention_2"}),
        ("demo", {"adapter": "./nowhere"}),
        ("demo", {"processor": "./nowhere"}),
        ("demo", {"chat_template": "no such"}),
        ("demo", {"engine": "transformer"}),
        ("demo", {"engine_args": {"a": 1}}),
        ("m", {"engine": "vllm"}),
        ("m", {"engine": "openai", "base_url": "http://127.0.0.1:9/v1", "engine_args": {"retries": 0}}),
        ("m", {"engine": "openai", "base_url": "no url"}),
    ],
)
def test_what_can_be_known_before(first, name, options):
    with pytest.raises(VLMError):
        vlm_nb.load(name, **options)
    still_there(first)


def test_a_server_without_that_model(first):
    with chat_server(models=("other",)) as chat, pytest.raises(VLMError, match="other"):
        vlm_nb.load("mine", engine="openai", base_url=chat.url)
    still_there(first)


def test_a_load_that_is_cancelled_while_it_looks(first):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        vlm_nb.load("demo", cancelled=stop)
    still_there(first)


def test_too_little_memory_even_after_freeing(first, monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda device: -registry.CACHES)
    with pytest.raises(OutOfMemory, match=r"before loading.*even without the models that are loaded now"):
        vlm_nb.load("demo")
    monkeypatch.undo()
    still_there(first)


def test_memory_that_the_earlier_model_gives_back_counts(first, monkeypatch):
    free = iter([1_000, *[10**12] * 20])  # too little at first, enough once the model is gone
    monkeypatch.setattr(devices, "free_memory", lambda device: next(free))
    model = vlm_nb.load("demo")
    assert first.engine.closed
    assert registry.loaded() == [model]


def test_with_keep_the_memory_of_the_others_does_not_count(first, monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda device: 1_000)
    with pytest.raises(OutOfMemory):
        vlm_nb.load("demo", keep=True)
    still_there(first)


def test_a_load_that_goes_well_frees_the_earlier_one_before_it_takes_memory(first, monkeypatch):
    from vlm_nb.engines.hf import opening

    seen = []
    plain = opening.load

    def watched(*args):
        seen.append(first.engine.closed)
        return plain(*args)

    monkeypatch.setattr(opening, "load", watched)
    vlm_nb.load("demo")
    assert seen == [True]


def test_what_only_shows_with_the_weights_leaves_nothing_loaded(first):
    with pytest.raises(OptionError, match="no_such_option"):
        vlm_nb.load("demo", model_kwargs={"no_such_option": 1})
    assert registry.loaded() == []


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_has_all_that_its_thread_calls(name):
    module, _, attribute = ENGINES[name].partition(":")
    backend = getattr(importlib.import_module(module), attribute)
    wanted = {name for name in vars(Backend) if not name.startswith("_")}
    assert "prepare" in wanted
    assert wanted <= set(dir(backend))
