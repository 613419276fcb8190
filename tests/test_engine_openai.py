"""The openai engine against a small server over a real socket: life cycle, streams, retries, faults, keys."""

from __future__ import annotations

import io
import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("openai", reason="the openai package is not installed")

from chat_server import Raw, chat_server, images_of, prompt_of
from fault_proxy import FAULTS, fault_proxy, seeded
from PIL import Image

import vlm_nb
from vlm_nb.engines.base import Engine, ModelInfo, generate, stream
from vlm_nb.engines.openai import OpenAIBackend, list_models
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.errors import (
    CapabilityError,
    ContextTooLong,
    LoadError,
    MissingDependency,
    ModelAccessDenied,
    ModelNotFound,
    OptionError,
    ServerError,
    VLMError,
)
from vlm_nb.request import Completion, GenerationConfig, ImageRef, Message, Request

PICTURE = Image.effect_noise((29, 31), 60).convert("RGB")
QUICK = {"timeout": 20.0, "backoff": 0.01}
SECRET = "sk-do-not-show-me-0123456789"


def ask(text: str, *, interactive: bool = True, schema: Any = None, **generation: Any) -> Request:
    return Request(
        messages=(Message("user", (ImageRef(0), text)),),
        images=(PICTURE,),
        generation=GenerationConfig(**generation),
        interactive=interactive,
        schema=schema,
    )


@contextmanager
def engine_at(
    url: str, model: str = "tiny", *, args: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Engine]:
    """An open engine; its ``info`` is set."""
    spec = LoadSpec(
        model=model, engine="openai", base_url=url, engine_args={**QUICK, **(args or {})}, **settings
    )
    engine = Engine(OpenAIBackend(spec), "openai")
    try:
        engine.load(lambda _: None, threading.Event()).result(30)
        yield engine
    finally:
        assert engine.close(10)


def answer(engine: Engine, request: Request) -> Completion:
    return engine.submit(request).result(30)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


# Loading ----------------------------------------------------------------------------------------------------


def test_load_ask_and_reload_by_the_public_calls(fresh_registry: None) -> None:
    with chat_server(answer=lambda body: f"{len(images_of(body))} image, {prompt_of(body)}") as chat:
        model = vlm_nb.load("tiny", engine="openai", base_url=chat.url, engine_args=QUICK)
        prediction = model.ask(PICTURE, "what is it?")
        assert prediction.caption == "1 image, what is it?"
        assert (prediction.usage.prompt_tokens, prediction.usage.new_tokens) == (7, 5)
        assert chat.url in repr(model)
        assert vlm_nb.load("tiny", engine="openai", base_url=chat.url, engine_args=QUICK) is model
        model.unload()


def test_what_the_server_tells_about_the_model() -> None:
    with chat_server() as chat, engine_at(chat.url) as engine:
        info: ModelInfo | None = engine.info
        assert info is not None
        assert (info.context_length, info.device, info.details["server"]) == (1024, chat.url, "vllm")
        assert list_models(chat.url) == ["tiny"]


def test_a_model_that_the_server_lacks_names_the_nearest() -> None:
    with (
        chat_server(models=("qwen-vl", "llava")) as chat,
        pytest.raises(ModelNotFound, match="no model 'qwen-v'; it offers qwen-vl"),
        engine_at(chat.url, "qwen-v"),
    ):
        pass


def test_lists_that_leave_aliases_out_do_not_stop_a_load() -> None:
    with chat_server(owner="somebody") as chat, engine_at(chat.url, "alias") as engine:
        assert answer(engine, ask("hi")).text == "echo hi"


def test_servers_without_a_list_are_fine() -> None:
    with chat_server() as chat, engine_at(chat.url.replace("/v1", "/x/v1"), "m") as engine:
        assert answer(engine, ask("hi")).text == "echo hi"


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(LoadError, match=r"connection failed.*[.] Is the server running") as caught:
            list_models(url)
    assert "\n" not in str(caught.value)


def test_a_load_can_be_cancelled() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        spec = LoadSpec(model="m", engine="openai", base_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        engine = Engine(OpenAIBackend(spec), "openai")
        cancelled = threading.Event()
        future = engine.load(lambda _: None, cancelled)
        cancelled.set()
        with pytest.raises(VLMError, match="cancelled"):
            future.result(10)
        assert engine.close(10)


def test_without_the_openai_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(MissingDependency, match='pip install "openai>='):
        OpenAIBackend(LoadSpec(model="m", engine="openai", base_url="vllm"))


# Requests ---------------------------------------------------------------------------------------------------


def test_the_image_arrives_without_loss() -> None:
    with chat_server() as chat, engine_at(chat.url) as engine:
        answer(engine, ask("hi"))
        (seen,) = images_of(chat.bodies[0])
        assert (seen.size, seen.tobytes()) == (PICTURE.size, PICTURE.tobytes())


def test_images_as_files_only_where_allowed(tmp_path: Any) -> None:
    folder = {"media_folder": str(tmp_path)}
    with chat_server() as chat:
        with engine_at(chat.url, args=folder) as engine:
            answer(engine, ask("hi"))
        with engine_at(chat.url, args=folder, allow_local_paths=True) as engine:
            answer(engine, ask("hi"))
    first, second = (body["messages"][0]["content"][0]["image_url"]["url"] for body in chat.bodies)
    assert first.startswith("data:image/png;base64,")
    assert second == next(tmp_path.iterdir()).as_uri()


def test_settings_and_schema_arrive() -> None:
    schema = {"json": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    with chat_server() as chat, engine_at(chat.url, args={"extra_body": {"priority": 1}}) as engine:
        answer(engine, ask("hi", schema=schema, temperature=0.5, top_k=3, seed=4, max_new_tokens=7))
    body = chat.bodies[0]
    assert (body["temperature"], body["top_k"], body["seed"], body["max_tokens"]) == (0.5, 3, 4, 7)
    assert (body["priority"], body["stream_options"]) == (1, {"include_usage": True})
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["a"]


def test_the_limit_cuts_and_says_so() -> None:
    with chat_server(answer=lambda _: "one two three") as chat, engine_at(chat.url) as engine:
        cut = answer(engine, ask("hi", max_new_tokens=2))
    assert (cut.text, cut.usage.finish_reason) == ("one two", "length")


@pytest.mark.parametrize(
    ("key", "says"),
    [("max_tokens", "Use 'max_completion_tokens' instead."), ("stream_options", "unknown: stream_options")],
)
def test_other_names_of_keywords_are_learnt_once(key: str, says: str) -> None:
    def picky(body: dict[str, Any]) -> Any:
        return Raw(400, {"error": {"message": says}}) if key in body else "fine"

    with chat_server(answer=picky) as chat, engine_at(chat.url) as engine:
        rows = (ask(f"{i}", interactive=False) for i in range(8))
        assert {completion.text for _, completion in generate(engine, rows)} == {"fine"}
        before = len(chat.bodies)
        assert answer(engine, ask("hi")).text == "fine"
        assert len(chat.bodies) == before + 1


def test_a_refused_request_is_its_own_error_and_not_repeated() -> None:
    def answers(body: dict[str, Any]) -> Any:
        long = Raw(400, {"error": {"message": "maximum context length is 1024 tokens"}})
        return {"long": long, "odd": Raw(422, {"detail": "odd"})}.get(prompt_of(body), "fine")

    with chat_server(answer=answers) as chat, engine_at(chat.url) as engine:
        done = dict(generate(engine, (ask(text, interactive=False) for text in ("ok", "long", "odd", "ok"))))
        assert len(chat.bodies) == 4
    assert [type(done[i].error) for i in range(4)] == [type(None), ContextTooLong, ServerError, type(None)]


def test_a_setting_that_the_server_would_ignore_is_an_error() -> None:
    with chat_server(owner="openai") as chat, engine_at(chat.url) as engine:
        assert isinstance(answer(engine, ask("hi", temperature=1.0, top_k=3)).error, CapabilityError)
        assert chat.bodies == []


def test_log_probabilities_where_asked_for() -> None:
    token = {"token": "yes", "logprob": -0.5, "bytes": None, "top_logprobs": []}
    said = {"delta": {"content": "yes"}, "logprobs": {"content": [token]}, "finish_reason": "stop"}
    with chat_server(answer=lambda _: [said]) as chat, engine_at(chat.url, args={"logprobs": True}) as engine:
        done = answer(engine, ask("hi"))
        assert engine.capabilities.confidence
    assert (done.text, done.token_logprobs, done.token_texts) == ("yes", (-0.5,), ("yes",))


# Trouble ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("interactive", [True, False])
def test_each_fault_once_then_the_answer(fault: str, interactive: bool) -> None:
    with (
        chat_server() as chat,
        fault_proxy(chat.url, lambda n: fault if n == 0 else None) as proxy,
        engine_at(proxy.url, args={"timeout": 0.5}) as engine,
    ):
        events = list(stream(engine, ask("one two three", interactive=interactive)))
        proxy.over.set()
    done = events.pop()
    assert isinstance(done, Completion)
    assert (done.error, done.text) == (None, "echo one two three")
    assert "".join(str(piece) for piece in events) == done.text
    assert proxy.requests == (1 if fault == "slow" else 2)


@pytest.mark.parametrize("fault", ["429", "500", "hang", "cut", "garbage"])
def test_a_fault_that_stays_is_the_rows_error(fault: str) -> None:
    with (
        chat_server() as chat,
        fault_proxy(chat.url, lambda _: fault, retry_after=0.01) as proxy,
        engine_at(proxy.url, args={"timeout": 0.3, "retries": 2}) as engine,
    ):
        done = answer(engine, ask("hi", interactive=False))
        proxy.over.set()
    assert isinstance(done.error, ServerError)
    assert "\n" not in str(done.error)
    assert proxy.requests == 3


def test_a_cut_stream_keeps_its_text_where_the_second_try_differs() -> None:
    turns = iter(["red apple and pear", "a green apple"])
    with (
        chat_server(answer=lambda _: next(turns), delay=0.02) as chat,
        fault_proxy(chat.url, lambda n: "cut" if n == 0 else None) as proxy,
        engine_at(proxy.url) as engine,
    ):
        done = answer(engine, ask("what?"))
    assert isinstance(done.error, ServerError)
    assert "cut" in str(done.error)
    assert done.text.startswith("red")


def test_500_rows_through_every_fault() -> None:
    """Every row is answered or carries its error; none is lost, none answered twice."""
    with (
        chat_server() as chat,
        fault_proxy(chat.url, seeded(0.3, seed=5), retry_after=0.02) as proxy,
        engine_at(proxy.url, error_threshold=0.9, args={"timeout": 0.4, "retries": 3}) as engine,
    ):
        rows = (ask(f"row {i}", interactive=False) for i in range(500))
        answers = list(generate(engine, rows))
        proxy.over.set()
    assert sorted(index for index, _ in answers) == list(range(500))
    for index, done in answers:
        assert done.error is not None or done.text == f"echo row {index}"
    failed = [index for index, done in answers if done.error is not None]
    assert len(failed) < 25  # 0.25 ** 4 of them, by chance
    assert max(proxy.delivered.values()) == 1
    assert {fault for fault in FAULTS if proxy.faults[fault]} == set(FAULTS)


def test_overload_halves_the_limit_and_calm_restores_it() -> None:
    overloaded = threading.Event()
    overloaded.set()
    reply = Raw(503, {"error": {"message": "busy"}})
    with (
        chat_server(answer=lambda _: reply if overloaded.is_set() else "fine", delay=0.01) as chat,
        engine_at(chat.url, max_concurrency=8, adjust_every=0.02, args={"retries": 200}) as engine,
    ):
        backend: Any = engine._backend
        assert (engine.slots, backend.limit) == (8, 4)
        requests = (ask(f"{i}", interactive=False) for i in range(10_000))
        answers = generate(engine, requests)
        first = threading.Thread(target=lambda: next(answers))
        first.start()
        until(lambda: backend.limit == 1)
        overloaded.clear()
        first.join(30)
        while backend.limit < 8:
            next(answers)
        answers.close()
        assert chat.most_open <= 8


def test_retry_after_stops_everything_until_then() -> None:
    times: list[float] = []

    def busy_once(body: dict[str, Any]) -> Any:
        times.append(time.monotonic())
        return Raw(429, {"error": "wait"}, {"Retry-After": "0.6"}) if len(times) == 1 else "fine"

    with chat_server(answer=busy_once) as chat, engine_at(chat.url, max_concurrency=2) as engine:
        done = list(generate(engine, (ask(f"{i}", interactive=False) for i in range(4))))
    assert all(completion.error is None for _, completion in done)
    assert len(times) == 5
    assert times[1] - times[0] >= 0.6


def test_a_server_that_asks_for_an_hour_is_not_waited_for() -> None:
    busy = Raw(429, {"error": "wait"}, {"Retry-After": "3600"})
    with chat_server(answer=lambda _: busy) as chat, engine_at(chat.url) as engine:
        assert "asks to wait 3600 s" in str(answer(engine, ask("hi")).error)
        assert len(chat.bodies) == 1


def test_cancel_closes_the_stream_at_the_server() -> None:
    with chat_server(answer=lambda _: "word " * 2000, delay=0.01) as chat, engine_at(chat.url) as engine:
        tickets = [engine.submit(ask(f"{i}", max_new_tokens=5000)) for i in range(3)]
        until(lambda: all(ticket.text for ticket in tickets))
        for ticket in tickets:
            ticket.cancel()
        done = [ticket.result(10) for ticket in tickets]
        assert {completion.usage.finish_reason for completion in done} == {"cancelled"}
        assert all(completion.text for completion in done)
        until(lambda: len(chat.broken) == 3)
        assert answer(engine, ask("next", max_new_tokens=2)).error is None


def test_an_interrupted_list_closes_every_stream() -> None:
    with chat_server(answer=lambda _: "word " * 2000, delay=0.01) as chat, engine_at(chat.url) as engine:

        def rows() -> Iterator[Request]:
            yield from (ask(f"{i}", interactive=False, max_new_tokens=5000) for i in range(4))
            until(lambda: len(chat.bodies) == 4)
            raise KeyboardInterrupt

        done = []
        with pytest.raises(KeyboardInterrupt):
            done += [completion for _, completion in generate(engine, rows(), window=9)]
        until(lambda: len(chat.broken) == 4)
        assert answer(engine, ask("next", max_new_tokens=2)).error is None


def test_the_thread_stays_free_while_a_server_is_silent() -> None:
    with (
        chat_server() as chat,
        fault_proxy(chat.url, lambda n: "hang" if n == 0 else None) as proxy,
        engine_at(proxy.url, max_concurrency=4) as engine,
    ):
        stuck = engine.submit(ask("stuck"))
        until(lambda: proxy.requests == 1)
        assert answer(engine, ask("quick")).text == "echo quick"
        assert engine.call(lambda: 5).result(10) == 5
        assert not stuck.done
        stuck.cancel()
        assert stuck.result(10).usage.finish_reason == "cancelled"
        proxy.over.set()


# Keys -------------------------------------------------------------------------------------------------------


@pytest.fixture
def everything(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """All logs of all libraries at the lowest level, and all output, as one text."""
    log = io.StringIO()
    handler, root = logging.StreamHandler(log), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(1)
    yield lambda: log.getvalue() + "".join(capfd.readouterr())
    root.removeHandler(handler)
    root.setLevel(level)


def test_a_key_shows_nowhere(everything: Callable[[], str], fresh_registry: None) -> None:
    seen: list[str] = []

    def told(error: BaseException | None) -> None:
        assert error is not None
        seen.append("".join(traceback.format_exception(error)) + repr(vars(error)) + str(error))

    with chat_server(key=SECRET) as chat:
        model = vlm_nb.load("tiny", engine="openai", base_url=chat.url, api_key=SECRET, engine_args=QUICK)
        assert model.ask(PICTURE, "hi").caption == "echo hi"
        seen += [repr(model), repr(model.spec), repr(model.info), repr(model.spec.identity())]
        chat.key = "changed"  # the server answers 401 and repeats what it was sent
        result, error = model(source=PICTURE, user_prompt="hi")
        assert result is None
        told(error)
        with pytest.raises(ModelAccessDenied) as caught:
            list_models(chat.url, SECRET)
        told(caught.value)
    told(model(source=PICTURE, user_prompt="hi").error)
    text = everything() + "".join(seen)
    assert "refused the API key (401)" in text
    assert "HTTP Request: POST" in text  # the client's own logs are in there
    assert SECRET not in text


def test_a_token_provider_is_asked_for_each_request_and_its_tokens_hidden(
    everything: Callable[[], str],
) -> None:
    tokens = iter(f"{SECRET}-{i}" for i in range(99))
    with chat_server() as chat, engine_at(chat.url, api_key=lambda: next(tokens)) as engine:
        answer(engine, ask("one"))
        answer(engine, ask("two"))
        sent = [headers["authorization"] for headers in chat.headers]
        chat.key = "other"
        error = answer(engine, ask("three")).error
    assert len(set(sent)) == 2
    assert all(SECRET in header for header in sent)
    assert SECRET not in everything() + str(error)


def test_headers_given_by_hand_are_secrets_too() -> None:
    def leak(body: dict[str, Any]) -> Any:
        return Raw(400, {"error": {"message": f"bad header {SECRET}"}})

    headers = {"default_headers": {"X-Gateway-Key": SECRET}}
    with chat_server(answer=leak) as chat, engine_at(chat.url, args=headers) as engine:
        error = answer(engine, ask("hi")).error
        assert chat.headers[0]["x-gateway-key"] == SECRET
    assert "bad header ***" in str(error)


def test_credentials_in_a_base_url_are_refused() -> None:
    with pytest.raises(OptionError, match="credentials") as caught:
        vlm_nb.load("m", engine="openai", base_url=f"https://me:{SECRET}@host/v1")
    assert SECRET not in str(caught.value)


def test_the_engine_thread_is_gone_after_close() -> None:
    with chat_server() as chat:
        with engine_at(chat.url) as engine:
            answer(engine, ask("hi"))
        backend: Any = engine._backend
        backend.close()
        assert [t.name for t in threading.enumerate() if t.name.startswith("vlm_nb-openai")] == []
