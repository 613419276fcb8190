"""The vllm engine without vLLM: what it would be told, and how its answers and errors read."""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vlm_nb.engines import make_backend
from vlm_nb.engines.base import Engine, Ticket
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.engines.vllm import VLLMBackend
from vlm_nb.engines.vllm_terms import as_dict, check, completion, engine_args, load_error, request_error
from vlm_nb.errors import (
    CapabilityError,
    ContextTooLong,
    GenerationError,
    LoadError,
    MissingDependency,
    OptionError,
    OutOfMemory,
    SchemaError,
    VLMError,
)
from vlm_nb.request import ImageRef, Message, Request


def spec(**keywords: Any) -> LoadSpec:
    return LoadSpec.from_keywords("m", engine="vllm", **keywords)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_error_says_what_to_do() -> None:
    engine = Engine(make_backend(spec()), "vllm")
    with pytest.raises(MissingDependency, match="an environment for it"):
        engine.load(lambda _: None, threading.Event()).result(30)
    assert engine.close()


def test_our_keywords_in_vllms_words() -> None:
    sizes = {"tensor_parallel": 2, "max_model_len": 99, "max_batch_size": 7}
    asked = engine_args(spec(gpu_memory_utilization=0.5, dtype="bfloat16", **sizes))
    assert asked == {
        "model": "m",
        "tensor_parallel_size": 2,
        "max_model_len": 99,
        "gpu_memory_utilization": 0.5,
        "max_num_seqs": 7,
        "dtype": "bfloat16",
        "limit_mm_per_prompt": {"image": 4, "video": 0},
        "trust_remote_code": False,
        "disable_log_stats": True,
    }
    assert engine_args(spec(load_in_4bit=True))["quantization"] == "bitsandbytes"
    own = {"quantization": "awq", "enable_prefix_caching": True}
    assert engine_args(spec(engine_args=own)).items() >= own.items()


@pytest.mark.parametrize(
    "keywords",
    [
        {"base_url": "http://h/v1"},
        {"device_map": "auto"},
        {"adapter": "a"},
        {"attn_implementation": "sdpa"},
        {"local_files_only": True},
    ],
)
def test_keywords_that_mean_nothing(keywords: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="means nothing"):
        check(spec(**keywords))


def test_8_bit_is_refused_with_the_alternative() -> None:
    with pytest.raises(OptionError, match="fp8"):
        engine_args(spec(load_in_8bit=True))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("longer than the maximum model length of 9"), ContextTooLong),
        (ValueError("Failed to convert the grammar"), SchemaError),
        (ValueError("odd"), GenerationError),
        (RuntimeError("dead"), GenerationError),
        (CapabilityError("no"), CapabilityError),
    ],
)
def test_refused_requests(error: Exception, kind: type[VLMError]) -> None:
    assert type(request_error(error)) is kind


def test_failed_loads() -> None:
    assert isinstance(load_error(RuntimeError("CUDA out of memory. Tried to allocate")), OutOfMemory)
    assert isinstance(load_error(RuntimeError("no such folder")), LoadError)


def test_a_finished_output() -> None:
    ticket = Ticket(Request(messages=(Message("user", ("what?",)),)))
    ticket.push("a dog")
    pairs = ((5, -0.5, "a"), (6, 0, " dog"))
    steps = [{token: SimpleNamespace(logprob=chance, decoded_token=text)} for token, chance, text in pairs]
    answer = SimpleNamespace(token_ids=[5, 6], logprobs=steps, finish_reason="length")
    done = completion(SimpleNamespace(prompt_token_ids=[1, 2, 3]), answer, ticket)
    assert (done.text, done.token_logprobs, done.token_texts) == ("a dog", (-0.5, 0.0), ("a", " dog"))
    assert (done.usage.prompt_tokens, done.usage.new_tokens, done.usage.finish_reason) == (3, 2, "length")


def test_messages_as_templates_take_them() -> None:
    assert as_dict(Message("system", ("be brief",))) == {"role": "system", "content": "be brief"}
    turn = as_dict(Message("user", (ImageRef(0), "what?")))
    assert turn["content"] == [{"type": "image"}, {"type": "text", "text": "what?"}]


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What ``open`` needs of vLLM; its tokenizer has two templates by name."""
    tokenizer = SimpleNamespace(chat_template={"default": "{{ 1 }}", "tools": "{{ 2 }}"})
    hf_config = SimpleNamespace(model_type="qwen2_vl", _commit_hash=None)
    engine = SimpleNamespace(
        get_tokenizer=lambda: tokenizer,
        model_config=SimpleNamespace(
            hf_config=hf_config, dtype="torch.float16", quantization=None, max_model_len=9
        ),
        vllm_config=SimpleNamespace(device_config=SimpleNamespace(device_type="cpu")),
    )
    module = SimpleNamespace(EngineArgs=dict, LLMEngine=SimpleNamespace(from_engine_args=lambda args: engine))
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


def opened_template(asked: str | None) -> str | None:
    keywords = {} if asked is None else {"chat_template": asked}
    return VLLMBackend(spec(**keywords)).open(lambda _: None, threading.Event()).chat_template


@pytest.mark.usefixtures("fake_vllm")
def test_a_chat_template_is_a_text_a_file_or_a_name_and_known_when_loading(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ 3 }}")
    assert opened_template(None) == "{{ 1 }}"
    assert opened_template("tools") == "{{ 2 }}"
    assert opened_template("{{ 4 }}") == "{{ 4 }}"
    assert opened_template(str(tmp_path / "mine.jinja")) == "{{ 3 }}"
    with pytest.raises(OptionError, match=r"no template, no file and no name.*default, tools"):
        opened_template(str(tmp_path / "gone.jinja"))
