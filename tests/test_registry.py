"""Loading, re-loading, switching, and what is current."""

from __future__ import annotations

import threading

import pytest

from vlm_nb import registry
from vlm_nb.errors import Cancelled, DownloadError, ModelNotFound, NoModelLoaded, OptionError

pytestmark = pytest.mark.usefixtures("fresh_registry")


def load(name: str = "one", **keywords: object) -> registry.VLM:
    return registry.load(name, engine="scripted", script="x", **keywords)


def test_the_same_spec_again_is_the_loaded_model() -> None:
    assert load() is load()
    assert len(registry.loaded()) == 1


def test_another_spec_frees_the_first_unless_kept() -> None:
    first = load()
    second = load("two")
    assert first.engine.closed
    assert registry.loaded() == [second]
    third = load("three", keep=True)
    assert registry.loaded() == [second, third]
    assert registry.current() is third
    assert registry.use("two") is registry.current() is second


def test_unload_forgets_and_names_what_to_do() -> None:
    load()
    registry.unload()
    with pytest.raises(NoModelLoaded, match="%vlm load"):
        registry.current()
    with pytest.raises(NoModelLoaded, match=r"'one' is loaded; loaded: none\.\n"):
        registry.unload("one")
    with pytest.raises(NoModelLoaded, match="nothing to unload"):
        registry.unload()


def test_an_unknown_name_names_the_nearest() -> None:
    load("Qwen2.5-VL")
    with pytest.raises(NoModelLoaded, match=r"Qwen2\.5-VL"):
        registry.use("Qwen2.5VL")


def test_a_name_without_an_organisation_is_doubted_before_the_network_is() -> None:
    one = load()
    for name in ("demoo", "Demo", "dem"):
        with pytest.raises(ModelNotFound, match=r"^no model .*; did you mean demo\?\n"):
            registry.load(name)
    with pytest.raises(DownloadError, match=r"^'nosuch' names no organisation; .* organisation/name\."):
        registry.load("nosuch")
    assert registry.loaded() == [one]


def test_an_unknown_keyword_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="quantization"):
        load(quantisation="4bit")
    with pytest.raises(OptionError, match="4bit"):
        load(quantization="3bit")
    with pytest.raises(OptionError, match="choose one"):
        load(load_in_4bit=True, load_in_8bit=True)
    with pytest.raises(OptionError, match="scripted"):
        registry.load("x", engine="script")


def test_progress_is_reported_and_a_load_can_be_cancelled() -> None:
    seen = []
    stop = threading.Event()

    def report(progress: object) -> None:
        seen.append(progress)
        if len(seen) == 3:
            stop.set()

    with pytest.raises(Cancelled):
        load(engine_args={"load_seconds": 5}, on_progress=report, cancelled=stop)
    assert len(seen) >= 3
    assert registry.loaded() == []


def test_secrets_never_show() -> None:
    model = load(api_key="sk-secret", token="hf_secret")
    assert "secret" not in repr(model) + repr(model.spec) + str(model.spec.changed())
