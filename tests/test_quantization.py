"""bitsandbytes: which modules are quantised, on real architectures; agreement with 16 bit; clear refusals."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_helpers import about, ignore, loaded, noise
from engine_models import make_llava, make_qwen
from torch import nn

from vlm_nb.engines.base import Engine
from vlm_nb.engines.hf import quantization
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.engines.transformers import TransformersBackend
from vlm_nb.errors import MissingDependency, OptionError, QuantizationUnavailable

pytest.importorskip("bitsandbytes")
KINDS = {"4bit": "Linear4bit", "8bit": "Linear8bitLt"}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_qwen(tmp_path_factory.mktemp("qwen"), hidden=128)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llava(tmp_path_factory.mktemp("llava"), hidden=128)


IN_16_BIT = {"Linear", "PackedLinear"}


def linear_modules(engine: Engine) -> dict[str, str]:
    model = engine._backend._loaded.model
    return {n: type(m).__name__ for n, m in model.named_modules() if isinstance(m, nn.Linear)}


@pytest.mark.parametrize(("kind", "way"), [("qwen", "4bit"), ("qwen", "8bit"), ("llava", "4bit")])
def test_only_the_language_model_is_quantised(request, kind, way):
    with loaded(request.getfixturevalue(kind), dtype="bfloat16", quantization=way) as engine:
        assert engine.info.quantization == way
        modules = linear_modules(engine)
        in_text = {name for name in modules if ".language_model.layers." in name}
        assert in_text
        assert {modules[name] for name in in_text} == {KINDS[way]}
        others = {name: modules[name] for name in modules if name not in in_text}
        assert any("vis" in name for name in others)
        assert "lm_head" in others
        assert set(others.values()) <= IN_16_BIT
        model = engine._backend._loaded.model
        assert {p.dtype for n, p in model.named_parameters() if n not in in_text and ".layers." not in n} == {
            torch.bfloat16
        }


def test_a_tied_head_stays_in_16_bit(tmp_path):
    with loaded(make_qwen(tmp_path, hidden=128, tie=True), dtype="bfloat16", quantization="4bit") as engine:
        model = engine._backend._loaded.model
        assert type(model.lm_head).__name__ in IN_16_BIT
        assert model.lm_head.weight is model.get_input_embeddings().weight


def test_what_the_family_names_is_kept_as_well(qwen):
    asked: list[str | None] = []

    def skips(model_type: str | None) -> tuple[str, ...]:
        asked.append(model_type)
        return ("model.language_model.layers.0",)

    with loaded(qwen, dtype="bfloat16", quantization="8bit", quantization_skips=skips) as engine:
        modules = linear_modules(engine)
    assert asked == ["qwen2_5_vl"]
    assert {kind for name, kind in modules.items() if ".layers.0." in name} <= IN_16_BIT
    assert {kind for name, kind in modules.items() if "language_model.layers.1." in name} == {"Linear8bitLt"}


def test_four_bit_is_nf4_with_double_quantisation(qwen):
    with loaded(qwen, dtype="bfloat16", quantization="4bit") as engine:
        config = engine._backend._loaded.model.config.quantization_config
        assert config.bnb_4bit_quant_type == "nf4"
        assert config.bnb_4bit_use_double_quant
        assert config.bnb_4bit_compute_dtype is torch.bfloat16


@pytest.mark.parametrize(("way", "least"), [("8bit", 0.98), ("4bit", 0.9)])
def test_quantised_scores_agree_with_16_bit(qwen, way, least):
    """Cosine of the first token's scores; the figure is printed with ``-s``."""
    request = about(noise(112, 112), question="agree?", max_new_tokens=8)

    def scores(**options: Any) -> torch.Tensor:
        with loaded(qwen, dtype="bfloat16", **options) as engine:
            inputs = engine._backend._loaded.encoder.encode(request).inputs
            model = engine._backend._loaded.model
            assert engine.submit(request).result(60).error is None
            inputs = {k: v.bfloat16() if v.is_floating_point() else v for k, v in inputs.items()}
            return engine.call(lambda: model(**inputs).logits[0].float().clone()).result(60)

    plain, quantised = scores(), scores(quantization=way)
    agreement = nn.functional.cosine_similarity(plain, quantised, dim=-1).mean().item()
    print(f"{way}: mean cosine {agreement:.4f}")
    assert agreement > least


def test_quantised_models_are_smaller_and_freed(tmp_path):
    folder = make_qwen(tmp_path, hidden=256, layers=4)
    sizes = {}
    for way in (None, "8bit", "4bit"):
        with loaded(folder, dtype="bfloat16", quantization=way) as engine:
            sizes[way] = engine.info.memory
    assert sizes["4bit"] < sizes["8bit"] < sizes[None]


def test_shapes_that_the_kernel_for_cpus_cannot_take_are_left_alone(tmp_path):
    folder = make_qwen(tmp_path, hidden=32)
    with loaded(folder, dtype="bfloat16", quantization="4bit") as engine:
        assert engine.submit(about(noise(56, 56), max_new_tokens=4)).result(60).error is None


def test_a_config_of_ones_own_goes_through(qwen):
    from transformers import BitsAndBytesConfig

    own = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="fp4", llm_int8_skip_modules=["model.visual"]
    )
    with loaded(qwen, dtype="bfloat16", quantization_config=own) as engine:
        assert engine.info.quantization == "4bit"
        assert engine._backend._loaded.model.config.quantization_config.bnb_4bit_quant_type == "fp4"


def test_a_checkpoint_saved_quantised_loads_as_it_is(qwen, tmp_path):
    with loaded(qwen, dtype="bfloat16", quantization="4bit") as engine:
        backend = engine._backend._loaded
        engine.call(lambda: backend.model.save_pretrained(tmp_path)).result(60)
        engine.call(lambda: backend.encoder._processor.image_processor.save_pretrained(tmp_path)).result(60)
        engine.call(lambda: backend.tokenizer.save_pretrained(tmp_path)).result(60)
    for way in (None, "4bit"):
        with loaded(tmp_path, dtype="bfloat16", quantization=way) as engine:
            assert engine.info.quantization == "4bit"
            assert "Linear4bit" in linear_modules(engine).values()
            assert engine.submit(about(noise(56, 56), max_new_tokens=4)).result(60).error is None
    engine = Engine(TransformersBackend(LoadSpec(model=str(tmp_path), quantization="8bit")), "transformers")
    error = engine.load(ignore, threading.Event()).exception(60)
    engine.close()
    assert isinstance(error, OptionError)
    assert "already quantised (4bit)" in str(error)


@pytest.mark.parametrize(
    ("values", "name"),
    [({"quant_method": "awq"}, "awq"), ({"quant_method": "gptq", "bits": 4}, "gptq"), ({}, "quantised")],
)
def test_other_methods_are_named(values, name):
    assert quantization.name_of(values) == name


def test_a_device_that_bitsandbytes_does_not_know(monkeypatch):
    import bitsandbytes

    monkeypatch.setattr(bitsandbytes, "supported_torch_devices", {"cpu", "cuda"})
    with pytest.raises(QuantizationUnavailable) as raised:
        quantization.check_bitsandbytes(torch.device("mps"))
    for words in ("cpu, cuda", 'device_map="cpu"', "bfloat16", "AWQ", 'engine="openai"'):
        assert words in str(raised.value)


def test_without_bitsandbytes_the_command_is_given(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingDependency, match="pip install bitsandbytes"):
        quantization.check_bitsandbytes(torch.device("cuda"))


def test_patterns_match_as_transformers_matches_them():
    from transformers.quantizers.quantizers_utils import should_convert_module

    if not should_convert_module("model.visuals.x", ["model.visual"]):
        pytest.skip("this transformers takes a name's beginning for the name, and keeps more in 16 bit")
    names = ["model.visual.blocks.0", "model.visual", "visual", "lm_head", "model.lm_head", "model.visuals.x"]
    for pattern in ("model.visual", "visual", "lm_head", "model.language_model.layers.1"):
        for name in (*names, "model.language_model.layers.11", "model.language_model.layers.1.mlp"):
            assert quantization.is_kept(name, [pattern]) == (not should_convert_module(name, [pattern]))
