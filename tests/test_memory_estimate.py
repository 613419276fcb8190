"""The estimate before loading against what is measured after; refusals that name what would fit."""

from __future__ import annotations

import mmap
import threading
from pathlib import Path

import pytest
import torch
from engine_helpers import ignore, loaded
from engine_models import make_llava, make_qwen

from vlm_nb.engines.base import Engine
from vlm_nb.engines.hf import devices, memory
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.engines.transformers import TransformersBackend
from vlm_nb.errors import OutOfMemory

WITHIN = 0.15


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {
        "qwen": make_qwen(place / "qwen", hidden=128),
        "tied": make_qwen(place / "tied", hidden=128, tie=True),
        "medium": make_qwen(place / "medium", hidden=512, layers=8),
        "llava": make_llava(place / "llava", hidden=128),
    }


@pytest.mark.parametrize(
    ("name", "way", "dtype"),
    [
        ("qwen", None, "float32"),
        ("tied", "8bit", "bfloat16"),
        ("tied", "4bit", "float32"),
        ("medium", None, "bfloat16"),
        ("medium", "8bit", "bfloat16"),
        ("medium", "4bit", "bfloat16"),
        ("llava", "4bit", "bfloat16"),
    ],
)
def test_the_estimate_is_close_to_what_is_measured(folders, name, way, dtype):
    if way is not None:
        pytest.importorskip("bitsandbytes")
    with loaded(folders[name], dtype=dtype, quantization=way) as engine:
        estimated, measured = engine.info.details["estimated bytes"], engine.info.memory
        footprint = engine._backend._loaded.model.get_memory_footprint()
    print(f"{name} {dtype} {way}: estimated {estimated}, measured {measured}: {estimated / measured:.3f}")
    assert estimated == pytest.approx(measured, rel=WITHIN)
    assert measured == pytest.approx(footprint, rel=WITHIN)


def refusal(folder: Path, monkeypatch: pytest.MonkeyPatch, free: int, **options: object) -> str:
    monkeypatch.setattr(devices, "free_memory", lambda device: free)
    engine = Engine(TransformersBackend(LoadSpec(model=str(folder), **options)), "transformers")
    error = engine.load(ignore, threading.Event()).exception(60)
    engine.close()
    assert isinstance(error, OutOfMemory), error
    assert "out of memory" in str(error)
    return str(error)


def test_too_big_names_the_settings_that_would_fit(folders, monkeypatch):
    need = {"8bit": 42_700_000, "4bit": 33_200_000}  # as the test above prints
    working = memory.WORKING_TOKENS * 2 * 8 * 2 * 128 * 2  # keys and values, layers, heads, size, bytes
    both = refusal(folders["medium"], monkeypatch, need["8bit"] + working, dtype="bfloat16")
    assert 'quantization="8bit"' in both
    assert 'quantization="4bit"' in both
    four = refusal(folders["medium"], monkeypatch, need["4bit"] + working, dtype="bfloat16")
    assert 'quantization="4bit"' in four
    assert "8bit" not in four
    none = refusal(folders["medium"], monkeypatch, 1000, dtype="bfloat16")
    assert "a smaller model" in none


def test_enough_memory_or_none_that_is_known_is_no_refusal(folders, monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda device: None)
    with loaded(folders["qwen"]) as engine:
        assert engine.info.memory


def test_a_skeleton_takes_no_memory(folders):
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(folders["medium"])
    model = memory.skeleton(config, AutoModelForImageTextToText, trust_remote_code=False)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_a_big_config_is_estimated_without_its_weights():
    """Qwen2.5-VL 7B has 8.29 billion parameters (its card): 16.6 GB in 16 bit."""
    from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig

    text = {
        "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "intermediate_size": 18944, "vocab_size": 152064,
    }  # fmt: skip
    vision = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    model = memory.skeleton(config, AutoModelForImageTextToText, trust_remote_code=False)
    wanted = memory.estimate(model, config, torch.bfloat16, None, [])
    assert wanted.weights == pytest.approx(8.29e9 * 2, rel=0.03)
    assert 5e9 < wanted.otherwise["4bit"] < 7e9
    assert wanted.otherwise["4bit"] < wanted.otherwise["8bit"] < wanted.weights
    assert memory.kv_bytes_per_token(config, 2) == 57344


def test_memory_that_is_free_and_used_is_known_on_the_cpu():
    cpu = torch.device("cpu")
    assert devices.free_memory(cpu) > 2**20
    before = devices.used_memory(cpu)
    with mmap.mmap(-1, size := 2**28) as held:  # pages from the system, not from what an allocator kept
        held.write(b"1" * size)
        assert devices.used_memory(cpu) - before > size * 0.5


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_recognised(error, expected):
    assert devices.is_out_of_memory(error) is expected
