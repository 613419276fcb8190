"""What the openai engine sends and reads, without a server."""

from __future__ import annotations

import base64
import email.utils
import io
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from vlm_nb.engines import make_backend
from vlm_nb.engines.remote import failures, listing, pictures, presets, wire
from vlm_nb.engines.remote.options import check
from vlm_nb.engines.remote.reading import Reading
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.errors import (
    CapabilityError,
    ContextTooLong,
    MissingDependency,
    OptionError,
    ServerError,
    VLMError,
)
from vlm_nb.request import GenerationConfig, ImageRef, Message, Request

PICTURE = Image.effect_noise((37, 23), 80).convert("RGB")
KEY = "sk-verysecret-1234567890"


def request(*messages: Message, generation: dict[str, Any] | None = None, **settings: Any) -> Request:
    turns = messages or (Message("user", (ImageRef(0), "what?")),)
    return Request(
        messages=turns, images=(PICTURE,), generation=GenerationConfig(**(generation or {})), **settings
    )


# Where ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1"),
        ("https://host/openai/v2", "https://host/openai/v2"),
        ("ollama", "http://127.0.0.1:11434/v1"),
        ("Together", "https://api.together.xyz/v1"),
    ],
)
def test_base_urls(given: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOGETHER_API_KEY", KEY)
    assert presets.endpoint(given).url == expected


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("localhost:8000", "did you mean http://localhost:8000"),
        ("user:pw@host:1/v1", "did you mean http://host:1"),
        ("https://user:pw@host/v1", "holds credentials"),
        ("https://host/v1?key=pw", "holds credentials or a query"),
        ("ftp://host", "expected http"),
        ("togehter", "together"),
    ],
)
def test_bad_base_urls_are_one_line_without_credentials(given: str, says: str) -> None:
    with pytest.raises(OptionError, match=says) as caught:
        presets.endpoint(given)
    assert "pw" not in str(caught.value)


def test_a_key_goes_to_its_own_host_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("VLM_NB_API_KEY", raising=False)
    assert presets.endpoint("https://api.openai.com/v1").key == KEY
    assert presets.endpoint("https://api.openai.com.evil.example/v1").key == presets.NO_KEY
    assert presets.endpoint("vllm").key == presets.NO_KEY
    assert presets.endpoint("vllm", "env:OPENAI_API_KEY").key == KEY
    monkeypatch.setenv("VLM_NB_API_KEY", "other")
    assert presets.endpoint("https://gateway.example/v1").key == "other"


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOGETHER_API_KEY", raising=False)
    with pytest.raises(OptionError, match="TOGETHER_API_KEY"):
        presets.endpoint("together")


def test_no_base_url_means_openai_or_the_clients_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert presets.endpoint(None).url == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert presets.endpoint(None).url == "http://127.0.0.1:9/v1"


def test_vertex_tokens_are_refreshed_when_they_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    class Credentials:
        valid, token = False, "none yet"

        def refresh(self, request: object) -> None:
            self.valid, self.token = True, "fresh"

    google = SimpleNamespace(default=lambda scopes: (Credentials(), "project"))
    monkeypatch.setitem(sys.modules, "google.auth", google)  # type: ignore[arg-type]
    transport = SimpleNamespace(Request=object)
    monkeypatch.setitem(sys.modules, "google.auth.transport.requests", transport)  # type: ignore[arg-type]
    found = presets.vertex("mine", "europe-west4")
    assert presets.endpoint(**found).url.startswith(
        "https://europe-west4-aiplatform.googleapis.com/v1/projects/mine"
    )
    assert [found["api_key"](), found["api_key"]()] == ["fresh", "fresh"]
    monkeypatch.setitem(sys.modules, "google.auth", None)
    with pytest.raises(MissingDependency, match="pip install google-auth"):
        presets.vertex("mine")


@pytest.mark.parametrize(
    ("name", "host", "variable"),
    [
        ("openai", "api.openai.com", "OPENAI_API_KEY"),
        ("anthropic", "api.anthropic.com", "ANTHROPIC_API_KEY"),
        ("gemini", "generativelanguage.googleapis.com", "GEMINI_API_KEY"),
        ("together", "api.together.xyz", "TOGETHER_API_KEY"),
        ("sambanova", "api.sambanova.ai", "SAMBANOVA_API_KEY"),
        ("parasail", "api.parasail.io", "PARASAIL_API_KEY"),
    ],
)
def test_presets_of_hosted_models(
    name: str, host: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "sk-theirs")
    found = presets.endpoint(name)
    assert (urlsplit(found.url).hostname, found.key, found.local) == (host, "sk-theirs", False)


def test_a_preset_is_a_url_and_a_variable_only() -> None:
    for name, preset in presets.PRESETS.items():
        assert preset.url == presets.checked_url(preset.url), name
    assert all(p.key_variable for p in presets.PRESETS.values() if p.url.startswith("https"))


def test_keys_do_not_show() -> None:
    spec = LoadSpec.from_keywords(
        "m", engine="openai", api_key=KEY, engine_args={"default_headers": {"X-Key": KEY}}
    )
    shown = (repr(spec), repr(spec.identity()), repr(spec.changed()), repr(presets.endpoint("vllm", KEY)))
    assert KEY not in " ".join(shown)
    assert spec.identity() != LoadSpec.from_keywords("m", engine="openai", api_key="other").identity()


# What -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"quantization": "4bit"}, 'quantization= means nothing to engine="openai".*quantization="none"'),
        ({"device_map": "auto"}, "device_map= means nothing"),
        ({"engine_args": {"timeot": 3}}, "timeout"),
        ({"engine_args": {"server": "vlmm"}}, "vllm"),
        ({"image_quality": 0}, "from 1 to 100"),
    ],
)
def test_keywords_that_a_server_never_hears_of(keywords: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        check(LoadSpec.from_keywords("m", engine="openai", **keywords))


def test_a_gguf_file_gets_the_command_that_serves_it() -> None:
    with pytest.raises(OptionError, match=r"llama-server -m models/q\.gguf --mmproj"):
        check(LoadSpec(model="models/q.gguf", engine="openai"))
    check(LoadSpec(model="models/q.gguf", engine="openai", base_url="llama.cpp"))
    with pytest.raises(OptionError, match="llama-server"):
        make_backend(LoadSpec(model="models/q.gguf"))


def test_images_are_lossless_unless_a_quality_is_asked_for() -> None:
    def arrived(uri: str) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))

    png = arrived(pictures.data_uri(PICTURE, None))
    assert (png.format, png.size, png.tobytes()) == ("PNG", PICTURE.size, PICTURE.tobytes())
    jpeg = arrived(pictures.data_uri(PICTURE, 90))
    assert (jpeg.format, jpeg.size) == ("JPEG", PICTURE.size)


def test_shared_files_are_named_by_content(tmp_path: Path) -> None:
    first, again = (pictures.shared_file(PICTURE, None, tmp_path / "shared") for _ in range(2))
    assert first == again
    assert first.startswith("file:///")
    assert [path.suffix for path in (tmp_path / "shared").iterdir()] == [".png"]


def test_messages_keep_the_places_of_images() -> None:
    turns = (
        Message("system", ("be brief",)),
        Message("user", ("before ", ImageRef(0), " after")),
        Message("assistant", ("yes",)),
        Message("user", ("and now?",)),
    )
    sent = wire.chat_messages(request(*turns), lambda image: f"url {image.size}")
    assert sent == [
        {"role": "system", "content": "be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "before "},
                {"type": "image_url", "image_url": {"url": "url (37, 23)"}},
                {"type": "text", "text": " after"},
            ],
        },
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "and now?"},
    ]


def test_greedy_is_said_aloud_and_sampling_passes_through() -> None:
    assert wire.settings(request(), "openai") == {"max_tokens": 512, "temperature": 0.0}
    drawn = {"temperature": 0.7, "top_p": 0.9, "seed": 3, "max_new_tokens": 9, "stop": ("END",)}
    assert wire.settings(request(generation=drawn), "openai") == {
        "max_tokens": 9,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 3,
        "stop": ["END"],
    }


def test_what_only_some_servers_know() -> None:
    asked = request(
        generation={"temperature": 1.0, "top_k": 5, "repetition_penalty": 1.1, "min_new_tokens": 2},
        keep_special_tokens=True,
    )
    assert wire.settings(asked, "vllm")["extra_body"] == {
        "top_k": 5,
        "repetition_penalty": 1.1,
        "min_tokens": 2,
        "skip_special_tokens": False,
    }
    with pytest.raises(CapabilityError, match=r"repetition_penalty.*extra_body"):
        wire.settings(asked, "openai")
    with pytest.raises(CapabilityError, match="beams"):
        wire.settings(request(generation={"num_beams": 2}), "vllm")


def test_schemas_are_closed_and_their_names_left_alone() -> None:
    schema = {
        "type": "object",
        "properties": {"properties": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        "$defs": {"E": {"enum": [{"properties": {}}]}},
    }
    sent = wire.settings(request(schema={"json": schema}), "vllm")["response_format"]["json_schema"]
    inner = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "additionalProperties": False,
        "required": ["a"],
    }
    assert sent["strict"] is True
    assert sent["schema"] == {
        **schema,
        "properties": {"properties": inner},
        "additionalProperties": False,
        "required": ["properties"],
    }
    assert "additionalProperties" not in schema


@pytest.mark.parametrize(
    ("schema", "extra"),
    [
        ({"regex": "a+"}, {"structured_outputs": {"regex": "a+"}}),
        ({"choices": ["a cat", "b.c"]}, {"structured_outputs": {"regex": r"(a\ cat)|(b\.c)"}}),
    ],
)
def test_patterns_and_choices(schema: dict[str, Any], extra: dict[str, Any]) -> None:
    assert wire.settings(request(schema=schema), "vllm")["extra_body"] == extra
    with pytest.raises(CapabilityError, match="pydantic"):
        wire.settings(request(schema=schema), "openai")
    with pytest.raises(CapabilityError, match="cannot keep"):
        wire.settings(request(schema={"json": {}}), "transformers")


def chunk(**choice: Any) -> Any:
    return SimpleNamespace(usage=None, choices=[SimpleNamespace(**{"finish_reason": None, **choice})])


def said(content: str | None = None, **more: Any) -> Any:
    return SimpleNamespace(content=content, **more)


def test_thinking_that_comes_apart_is_put_back() -> None:
    reading = Reading()
    for delta in (said(reasoning_content="hm"), said(reasoning_content="m"), said("two"), said(" dogs")):
        reading.feed(chunk(delta=delta))
    assert reading.text == "<think>hmm</think>two dogs"
    assert reading.ending is None
    reading.feed(chunk(delta=said(), finish_reason="length"))
    assert reading.finish_reason == "length"


def test_an_answer_of_thinking_only_is_closed() -> None:
    reading = Reading()
    reading.feed(chunk(delta=said(reasoning="hm"), finish_reason="stop"))
    assert reading.text == "<think>hm</think>"


@pytest.mark.parametrize("nonsense", ["text", {"a": 1}, SimpleNamespace(), SimpleNamespace(choices=3)])
def test_what_is_no_chunk_is_refused(nonsense: Any) -> None:
    with pytest.raises(ValueError, match="not a chat completion"):
        Reading().feed(nonsense)


# What went wrong --------------------------------------------------------------------------------------------


class Status(Exception):
    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None, code: str = "") -> None:
        super().__init__("Error code")
        self.status_code, self.body, self.code = status, body, code
        self.response = SimpleNamespace(headers=headers or {})


@pytest.mark.parametrize(
    ("error", "kind", "transient", "says"),
    [
        (Status(429, {"message": "slow down"}), ServerError, True, "answered 429: slow down"),
        (Status(429, {}, code="insufficient_quota"), ServerError, False, "429"),
        (Status(503, "loading"), ServerError, True, "loading"),
        (Status(400, {"message": "maximum context length is 10"}), ContextTooLong, False, "too long"),
        (Status(413, "big"), ContextTooLong, False, "too long"),
        (Status(422, {"detail": "bad"}), ServerError, False, r"refused the request \(422\): bad"),
        (Status(400, "response_format no"), CapabilityError, False, "schema"),
        (Status(401, {"error": {"message": f"wrong {KEY}"}}), ServerError, False, r"wrong \*\*\*"),
        (Status(404, None), ServerError, False, r"no such model.*\('m'\)"),
        (ValueError("line 3"), ServerError, True, "unreadable JSON"),
        (failures.Unreadable("cut"), ServerError, True, "cut"),
        (ConnectionResetError("reset"), ServerError, True, "reset"),
        (TypeError("our mistake"), ServerError, False, "our mistake"),
        (CapabilityError("no"), CapabilityError, False, "no"),
    ],
)
def test_failures(error: Exception, kind: type[VLMError], transient: bool, says: str) -> None:
    failure = failures.failure_of(error, "http://host", "m", [KEY])
    assert type(failure.error) is kind
    assert failure.transient is transient
    assert failure.overload is False or transient or isinstance(error, TypeError)
    with pytest.raises(kind, match=says):
        raise failure.error
    assert KEY not in str(failure.error)
    assert "\n" not in str(failure.error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert failures.retry_after(headers) == seconds


def test_retry_after_as_a_date() -> None:
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert 50 < (failures.retry_after({"retry-after": in_a_minute}) or 0) <= 61


def test_a_missing_model_names_the_nearest() -> None:
    failure = failures.failure_of(Status(404, "no"), "http://host", "qwen-v", [], ["qwen-vl", "llava"])
    assert "You asked for 'qwen-v'; did you mean qwen-vl?" in str(failure.error)


def test_long_messages_are_cut() -> None:
    assert len(failures.hidden("x\n" * 9999, [])) == failures.LONGEST


# The model list ---------------------------------------------------------------------------------------------


def test_facts_of_an_image_processor() -> None:
    qwen = {"patch_size": 14, "merge_size": 2, "size": {"shortest_edge": 3136, "longest_edge": 100352}}
    assert listing.image_facts(qwen) == {"patch": 28, "min_pixels": 3136, "max_pixels": 100352}
    llava = {
        "size": {"shortest_edge": 336},
        "crop_size": {"height": 336, "width": 336},
        "do_center_crop": True,
    }
    assert listing.image_facts(llava) == {"image_size": (336, 336)}
    assert listing.image_facts({"size": 5}) == {}
