"""The Explorer with models of a server, over a real socket: listed, loaded, asked; the key never shown."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import comm
import pytest
from chat_server import Chat, chat_server
from explorer_helpers import DummyComm, ask, picture, say, until

import vlm_nb
from vlm_nb.errors import OptionError
from vlm_nb.explorer import Explorer, explore, servers

pytest.importorskip("openai")
KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def dummy_comm(monkeypatch: pytest.MonkeyPatch, fresh_registry: None) -> None:
    monkeypatch.setattr(comm, "create_comm", DummyComm)
    monkeypatch.delenv("VLM_NB_API_KEY", raising=False)


@pytest.fixture
def chat() -> Iterator[Chat]:
    with chat_server(models=("tiny", "large")) as started:
        yield started


@pytest.fixture
def x() -> Iterator[Explorer]:
    made = explore([picture()])
    yield made
    made.close()


def offered(x: Explorer) -> list[str]:
    return [one["name"] for one in x.ui_models["choices"] if one.get("server")]


def load(x: Explorer, model: str, server: str, **more: Any) -> None:
    say(x, "load", model=model, device="server", server=server, precision="4bit", **more)
    until(lambda: x.ui_loading["status"] in ("idle", "error"))


def held(until: threading.Event) -> None:
    until.wait(20)


def everything_sent(x: Explorer) -> str:
    sent = x.comm.sent if x.comm else []
    return json.dumps([{**m, "buffers": None} for m in sent], default=repr) + repr(x.get_state())


def test_a_typed_server_is_listed_loaded_and_asked(x: Explorer, chat: Chat) -> None:
    say(x, "server", server=chat.url)
    until(lambda: offered(x) == ["tiny", "large"])
    assert {"name": "tiny", "hint": f"at {chat.url}", "server": chat.url} in x.ui_models["choices"]
    load(x, "tiny", chat.url)
    assert x.ui_models["current"]["name"] == "tiny"
    assert chat.url in x.ui_models["current"]["facts"]
    ask(x, "what is it?")
    assert x.ui_answer["text"] == "echo what is it?"
    assert vlm_nb.current().spec.quantization is None
    assert x.ui_models["servers"][0] == {"name": chat.url, "hint": "in use"}


def test_presets_are_offered_by_name(x: Explorer) -> None:
    names = [one["name"] for one in x.ui_models["servers"]]
    assert {"ollama", "vllm", "openai", "llama.cpp"} <= set(names)
    assert {"id": "server", "label": "A server"} in x.ui_models["devices"]
    assert servers.url_of("Ollama") == "http://127.0.0.1:11434/v1"


def test_the_models_of_a_loaded_server_are_listed(chat: Chat) -> None:
    vlm_nb.load("tiny", engine="openai", base_url=chat.url)
    x = explore([picture()])
    say(x, "hello")
    until(lambda: offered(x) == ["tiny", "large"])
    load(x, "large", chat.url, keep=True)
    assert [one["label"] for one in x.ui_models["rivals"]] == ["tiny"]
    x.close()
    assert [model.name for model in vlm_nb.loaded()] == ["tiny"]


def test_two_models_of_servers_are_compared(x: Explorer, chat: Chat) -> None:
    load(x, "tiny", chat.url)
    load(x, "large", chat.url, keep=True)
    (other,) = x.ui_models["rivals"]
    ask(x, "same?", rival=other["id"])
    until(lambda: x.ui_rival["status"] == "done")
    assert x.ui_rival["verdict"] == "The answers are the same"
    assert sorted(body["model"] for body in chat.bodies) == ["large", "tiny"]


def test_the_key_comes_from_the_environment_and_is_never_sent_to_the_browser(
    x: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chat_server(key=KEY) as chat:
        say(x, "server", server=chat.url)
        until(lambda: x.ui_notice)
        assert "401" in x.ui_notice["message"] or "key" in x.ui_notice["message"]
        monkeypatch.setenv("VLM_NB_API_KEY", KEY)
        say(x, "server", server=chat.url)
        until(lambda: offered(x) == ["tiny"])
        load(x, "tiny", chat.url)
        ask(x, "what?")
        assert x.ui_answer["text"] == "echo what?"
        assert KEY not in everything_sent(x)
        chat.key = "another"
        ask(x, "what?")
        assert x.ui_answer["status"] == "error"
        say(x, "export", format="json")
        assert KEY not in everything_sent(x)


def test_a_key_given_in_python_goes_to_its_own_server_only() -> None:
    with chat_server(key=KEY) as mine, chat_server(key=KEY) as other:
        x = explore([picture()], engine="openai", base_url=mine.url, api_key=KEY)
        assert x.ui_models["server"] == mine.url
        load(x, "tiny", other.url)
        assert x.ui_loading["status"] == "error"
        load(x, "tiny", mine.url)
        assert x.ui_models["current"]["name"] == "tiny"
        assert KEY not in everything_sent(x)
        assert servers.load_keywords(other.url, x._models._options).get("api_key") is None
        x.close()


def test_an_address_with_credentials_is_refused_without_repeating_them(x: Explorer) -> None:
    for kind in ("server", "load"):
        say(x, kind, model="m", device="server", server=f"http://me:{KEY}@127.0.0.1:1/v1")
        assert "credentials" in x.ui_notice["message"]
    assert KEY not in everything_sent(x)


@pytest.mark.parametrize(
    ("model", "server", "words"),
    [("m", "", "Name the server"), ("m", "nonsense", "preset"), ("m", "127.0.0.1:1", "http://")],
    ids=["no server", "no preset", "no scheme"],
)
def test_what_is_wrong_with_an_address_is_said(x: Explorer, model: str, server: str, words: str) -> None:
    say(x, "load", model=model, device="server", server=server)
    assert words in x.ui_notice["message"]
    assert x.ui_loading["status"] == "idle"


def test_a_model_that_the_server_lacks_is_an_error_with_its_names(x: Explorer, chat: Chat) -> None:
    load(x, "tyni", chat.url)
    assert "tiny" in x.ui_loading["problem"]["message"]


def test_without_a_name_the_only_model_is_meant(x: Explorer, chat: Chat) -> None:
    say(x, "server", server=chat.url)
    until(lambda: offered(x))
    say(x, "load", model="", device="server", server=chat.url)
    assert "it offers tiny, large" in x.ui_notice["message"]
    with pytest.raises(OptionError, match="model"):
        x._models.servers.name_at("http://127.0.0.1:9/v1", "")
    with chat_server(models=("only",)) as single:
        say(x, "server", server=single.url)
        until(lambda: "only" in offered(x))
        load(x, "", single.url)
        assert x.ui_models["current"]["name"] == "only"


def test_a_server_that_is_off_holds_up_neither_handlers_nor_questions(chat: Chat) -> None:
    vlm_nb.load("tiny", engine="openai", base_url=chat.url)
    x = explore([picture()])
    off = threading.Event()
    x._models.servers._worker.put(lambda: held(off))
    say(x, "server", server="http://127.0.0.1:9/v1")
    ask(x, "meanwhile")
    assert x.ui_answer["status"] == "done"
    off.set()
    until(lambda: x.ui_notice)
    assert "Is the server running" in x.ui_notice["message"]
    x.close()
