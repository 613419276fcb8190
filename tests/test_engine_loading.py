"""Loading from folders: what is refused, and with which words; keywords that change what is loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_helpers import about, ignore, loaded, noise, text
from engine_models import byte_tokenizer, make_llava, make_qwen

from vlm_nb.engines.base import Engine, generate
from vlm_nb.engines.hf import devices, loading
from vlm_nb.engines.hf.processor import chosen_template
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.engines.transformers import TransformersBackend
from vlm_nb.errors import (
    CapabilityError,
    LoadError,
    MissingDependency,
    ModelNotFound,
    OptionError,
    UnsafeModel,
    VLMError,
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_qwen(tmp_path_factory.mktemp("original"), hidden=64)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(original, tmp_path / "model")


def failure(model: Path | str, **options: Any) -> VLMError:
    """The error that loading ``model`` gives."""
    engine = Engine(TransformersBackend(LoadSpec(model=str(model), **options)), "transformers")
    error = engine.load(ignore, threading.Event()).exception(120)
    engine.close()
    assert isinstance(error, VLMError), error
    assert error.__traceback__ is None or error.__traceback__.tb_next is None
    assert "\n" not in str(error)
    return error


def edit(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def pickles_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def adapter_only(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "adapter_model.safetensors").write_bytes(b"x")


def one_shard_gone(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"x")


def tensors_gone(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file(
        {key: value for key, value in tensors.items() if "layers.1" not in key},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


SPOILED: dict[str, tuple[Callable[[Path], None], type[VLMError], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), ModelNotFound, "config.json"),
    "a damaged config": (
        lambda f: (f / "config.json").write_text("{"),
        LoadError,
        "config.json cannot be read",
    ),
    "no model type": (lambda f: edit(f, "config.json", model_type=None), LoadError, "no model_type"),
    "an unknown type": (lambda f: edit(f, "config.json", model_type="qwen9_vl"), LoadError, "pip install -U"),
    "a text model": (
        lambda f: (f / "config.json").write_text('{"model_type": "gpt2"}'),
        CapabilityError,
        "takes no images",
    ),
    "code of its own": (
        lambda f: edit(f, "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Mine"}),
        UnsafeModel,
        "trust_remote_code=True",
    ),
    "no image processor": (
        lambda f: (f / "preprocessor_config.json").unlink(),
        ModelNotFound,
        "preprocessor_config.json",
    ),
    "no tokenizer": (
        lambda f: [(f / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
        ModelNotFound,
        "tokenizer.json",
    ),
    "pickles only": (pickles_only, UnsafeModel, "pytorch_model.bin"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), ModelNotFound, "model.safetensors"),
    "an adapter": (adapter_only, LoadError, "adapter="),
    "a missing shard": (one_shard_gone, ModelNotFound, "model-00002-of-00002.safetensors"),
    "a damaged weight file": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:5000]),
        LoadError,
        "damaged",
    ),
    "missing tensors": (tensors_gone, LoadError, "random numbers"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_folder_is_refused_in_one_clear_line(folder, name):
    spoil, kind, words = SPOILED[name]
    spoil(folder)
    error = failure(folder)
    assert isinstance(error, kind)
    assert words in str(error)


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "~/no-such-folder-at-all", "a/b/c"])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(name):
    assert isinstance(failure(name), ModelNotFound)


def test_a_file_in_place_of_its_folder_is_named(folder):
    assert "give the folder" in str(failure(folder / "config.json"))


@pytest.mark.parametrize("name", ["nothing here", "org/a b"])
def test_a_name_that_cannot_be_a_repository_is_not_found(name):
    assert isinstance(failure(name), ModelNotFound | LoadError)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"dtype": "int3"}, OptionError, "bfloat16"),
        ({"dtype": "int8"}, OptionError, "bfloat16"),
        ({"device_map": "gpu9"}, OptionError, "cuda:1"),
        ({"chat_template": "no such"}, OptionError, "no named ones"),
        ({"chat_template": "{% for m in messages %}{{ m }"}, OptionError, "TemplateSyntaxError"),
        ({"model_kwargs": {"no_such_option": 1}}, OptionError, "no_such_option"),
        ({"attn_implementation": "flash_attention_2"}, MissingDependency, "pip install flash-attn"),
        ({"attn_implementation": "none such"}, LoadError, "none such"),
        ({"attn_implementation": {"vision_config": "flash_attention_2"}}, MissingDependency, "flash-attn"),
        ({"attn_implementation": {"vision": "sdpa"}}, OptionError, "Its parts: text_config, vision_config."),
        ({"adapter": "./nowhere"}, ModelNotFound, "no such folder"),
        ({"processor": "./nowhere"}, ModelNotFound, "no such folder"),
    ],
)
def test_bad_keywords_are_named(original, options, kind, words):
    error = failure(original, **options)
    assert isinstance(error, kind)
    assert words in str(error)


def test_parts_may_attend_in_ways_of_their_own(original):
    request = about(noise(56, 84), max_new_tokens=6)
    with loaded(original) as engine:
        assert engine.info.details["attention"] == "sdpa"
        [(_, expected)] = generate(engine, [request])
    with loaded(original, attn_implementation={"vision_config": "eager"}) as engine:
        assert engine.info.details["attention"] == "text: sdpa, vision: eager"
        assert engine.info.details["loop"] == "in flight"
        [(_, found)] = generate(engine, [request])
        assert (found.error, found.text) == (None, expected.text)


def test_engine_args_are_for_other_engines():
    with pytest.raises(OptionError, match="model_kwargs"):
        TransformersBackend(LoadSpec(model="x", engine_args={"a": 1}))


@pytest.mark.parametrize("options", [{"tensor_parallel": 2}, {"base_url": "vllm"}, {"replicas": 2}])
def test_keywords_of_other_engines_are_not_dropped(options):
    with pytest.raises(OptionError, match='means nothing to engine="transformers"'):
        TransformersBackend(LoadSpec(model="x", **options))


def test_what_is_known_about_a_model(original):
    with loaded(original, dtype="bfloat16", attn_implementation="eager", low_cpu_mem_usage=True) as engine:
        info = engine.info
        assert (info.model_type, info.device, info.dtype) == ("qwen2_5_vl", "cpu", "bfloat16")
        assert (info.patch, info.min_pixels, info.max_pixels) == (28, 784, 50176)
        assert info.context_length == 4096
        assert info.quantization is None
        assert info.fingerprint.startswith("files-")
        assert engine._backend._loaded.model.config._attn_implementation == "eager"
        assert engine.memory.loaded is not None


def test_a_fingerprint_changes_with_the_files(folder):
    with loaded(folder) as engine:
        before = engine.info.fingerprint
    with loaded(folder) as engine:
        assert engine.info.fingerprint == before
    edit(folder, "generation_config.json", top_k=3)
    with loaded(folder) as engine:
        assert engine.info.fingerprint != before


def test_auto_is_the_checkpoints_own_type(original):
    with loaded(original, dtype="auto") as engine:
        assert engine.info.dtype == "float32"


def test_the_default_type_follows_the_device(monkeypatch):
    assert devices.compute_dtype(None, torch.device("cpu")) in (torch.bfloat16, torch.float32)
    monkeypatch.setattr(devices, "cpu_computes_bf16", lambda: False)
    assert devices.compute_dtype(None, torch.device("cpu")) is torch.float32
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert devices.compute_dtype(None, torch.device("cuda")) is torch.float16
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert devices.compute_dtype(None, torch.device("cuda")) is torch.bfloat16
    monkeypatch.setattr(devices, "_macos", lambda: (13, 6))
    assert devices.compute_dtype(None, torch.device("mps")) is torch.float16


def test_the_default_dtype_of_torch_is_as_before(original):
    with loaded(original, dtype="bfloat16"):
        assert torch.get_default_dtype() is torch.float32


def test_a_processor_can_come_from_elsewhere(folder, original):
    for name in (
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ):
        (folder / name).unlink()
    with loaded(folder, processor=str(original)) as engine:
        assert engine.submit(about(noise(56, 56), max_new_tokens=2)).result(60).error is None


OWN_CODE = """
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

class MineConfig(Qwen2_5_VLConfig):
    model_type = "mine"

class Mine(Qwen2_5_VLForConditionalGeneration):
    config_class = MineConfig
"""


def as_named_in_modules(folder: Path) -> None:
    """Rename the tensors as the modules are called: only files of published types are mapped."""
    from safetensors.torch import load_file, save_file

    renamed = {
        key.replace("model.", "model.language_model.", 1) if key.startswith("model.") else key: value
        for key, value in load_file(folder / "model.safetensors").items()
    }
    renamed = {f"model.{key}" if key.startswith("visual.") else key: value for key, value in renamed.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})


def test_code_of_its_own_runs_only_when_trusted(folder, original, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    auto_map = {"AutoConfig": "mine.MineConfig", "AutoModelForImageTextToText": "mine.Mine"}
    edit(folder, "config.json", model_type="mine", auto_map=auto_map, architectures=["Mine"])
    as_named_in_modules(folder)
    (folder / "mine.py").write_text(f"print('running')\n{OWN_CODE}")
    assert isinstance(failure(folder, processor=str(original)), UnsafeModel)
    with loaded(folder, processor=str(original), trust_remote_code=True) as engine:
        assert type(engine._backend._loaded.model).__name__ == "Mine"
        assert engine.submit(about(noise(56, 56), max_new_tokens=2)).result(60).error is None


class Templates:
    """A processor with named templates."""

    def __init__(self, template: Any) -> None:
        self.chat_template = template
        self.tokenizer = byte_tokenizer()


def test_a_chat_template_is_a_text_a_file_or_a_name(tmp_path):
    several = Templates({"default": "{{ 1 }}", "tools": "{{ 2 }}"})
    (tmp_path / "mine.jinja").write_text("{{ 3 }}")
    assert chosen_template(several, None) == "{{ 1 }}"
    assert chosen_template(several, "tools") == "{{ 2 }}"
    assert chosen_template(several, str(tmp_path / "mine.jinja")) == "{{ 3 }}"
    assert chosen_template(several, "{% for m in messages %}{% endfor %}").startswith("{%")
    with pytest.raises(OptionError, match="default, tools"):
        chosen_template(several, "other")
    assert chosen_template(Templates(None), None) == byte_tokenizer().chat_template


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks for it
def test_an_adapter_changes_the_answers(original, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(original)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, lora_alpha=64)
    torch.manual_seed(0)
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    request = about(noise(56, 56), max_new_tokens=16)
    with loaded(original) as plain, loaded(original, adapter=str(tmp_path / "adapter")) as adapted:
        first, second = plain.submit(request).result(60), adapted.submit(request).result(60)
    assert first.error is second.error is None
    assert first.token_logprobs != pytest.approx(second.token_logprobs, abs=1e-3)
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    assert isinstance(failure(original, adapter=str(tmp_path / "adapter")), UnsafeModel)


def test_a_fixed_image_size_is_known(tmp_path):
    with loaded(make_llava(tmp_path)) as engine:
        assert engine.info.image_size == (56, 56)
        assert engine.info.patch is None


def test_cancel_before_the_weights(original):
    cancelled = threading.Event()
    engine = Engine(TransformersBackend(LoadSpec(model=str(original))), "transformers")
    from vlm_nb.engines.base import MODEL_GATE

    with MODEL_GATE.running():  # another engine is in the middle of a step
        future = engine.load(ignore, cancelled)
        threading.Timer(0.5, cancelled.set).start()
        assert type(future.exception(60)).__name__ == "Cancelled"
    engine.close()


def test_an_engine_can_be_closed_before_it_was_loaded(original):
    engine = Engine(TransformersBackend(LoadSpec(model=str(original))), "transformers")
    assert "load" in str(engine.submit(text()).result(60).error)
    assert engine.close(timeout=20)


def test_progress_bars_of_transformers_come_back(original):
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    with loaded(original):
        assert logging.is_progress_bar_enabled() == shown
    with loading.quiet():
        assert not logging.is_progress_bar_enabled()


def test_a_torchvision_that_cannot_be_imported_counts_as_absent(original, tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms ...')"
    )
    code = """
    import sys
    sys.path[:0] = [BROKEN, TESTS]
    from engine_helpers import about, loaded, noise
    with loaded(MODEL) as engine:
        assert engine.submit(about(noise(56, 56), max_new_tokens=2)).result(60).error is None
    print("fine")
    """
    names = {"BROKEN": tmp_path, "TESTS": Path(__file__).parent, "MODEL": original}
    code = textwrap.dedent(code)
    for name, value in names.items():
        code = code.replace(name, repr(str(value)))
    here = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=here, check=False
    )
    assert done.stdout.strip() == "fine", done.stderr[-2000:]


def test_the_gpu_of_the_thread_that_loads_is_the_engine_s(original: Path, monkeypatch: Any) -> None:
    """``torch.cuda.set_device`` holds for one thread; the engine has another."""
    used: list[tuple[Any, str]] = []
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda gpu: used.append((gpu, threading.current_thread().name))
    )
    for name, value in {"is_initialized": True, "current_device": 1}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    with loaded(original, device_map="cpu"):
        assert used == [(1, "vlm_nb-transformers")]
    for name, value in {"is_available": True, "device_count": 2}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    for asked in (None, "auto", "cuda", "cuda:1", 1, torch.device("cuda")):
        assert devices.target_device(asked) == torch.device("cuda", 1)
    assert devices.target_device("cuda:0") == torch.device("cuda", 0)


def test_a_share_of_a_gpu_s_memory(monkeypatch: Any) -> None:
    figures = {"mem_get_info": (60, 100), "memory_reserved": 30, "memory_allocated": 10}
    for name, value in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    found = []
    for share in (1.0, 0.5, 0.05):
        monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device, s=share: s)
        found.append(devices.free_memory(torch.device("cuda", 0)))
    monkeypatch.delattr(torch.cuda, "get_per_process_memory_fraction")
    assert [*found, devices.free_memory(torch.device("cuda", 0))] == [80, 40, 0, 80]


def test_cudnn_s_attention_is_left_out_while_any_engine_steps() -> None:
    """Torch has one setting for the process, and engines step in and out as they like."""
    settings: Any = torch.backends.cuda
    before, gpu = settings.cudnn_sdp_enabled(), torch.device("cuda")
    try:
        for at_first in (True, False):
            settings.enable_cudnn_sdp(at_first)
            first, second = devices.attention_kernels(gpu), devices.attention_kernels(gpu)
            for enter in (first, second):
                enter.__enter__()
                assert not settings.cudnn_sdp_enabled()
            first.__exit__(None, None, None)
            assert not settings.cudnn_sdp_enabled()
            second.__exit__(None, None, None)
            assert settings.cudnn_sdp_enabled() == at_first
        with devices.attention_kernels(torch.device("cpu")):
            assert settings.cudnn_sdp_enabled() is False
    finally:
        settings.enable_cudnn_sdp(before)
