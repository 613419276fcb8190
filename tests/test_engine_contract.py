"""One contract for every engine: the same tests against each. Servers join in ``tests/servers``."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from chat_server import chat_server, prompt_of
from PIL import Image, ImageDraw

from vlm_nb.engines import make_backend
from vlm_nb.engines.base import Engine, generate, stream
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.errors import CapabilityError, ModelUnloaded, SchemaError, VLMError
from vlm_nb.request import Completion, GenerationConfig, ImageRef, Message, Request

SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["cat", "dog"]}},
    "required": ["kind"],
    "additionalProperties": False,
}
SECONDS = 600.0


def picture(number: int = 0) -> Image.Image:
    """A 56 × 56 image, which Qwen-type models take as it is; each number gives another one."""
    image = Image.new("RGB", (56, 56), (40 * number % 256, 90, 200))
    ImageDraw.Draw(image).rectangle((4 + number % 20, 8, 40, 30 + number % 20), fill="orange")
    return image


@dataclass(frozen=True)
class Case:
    """One engine under test. ``spec`` opens it; ``long`` is a ``max_new_tokens`` that takes a while.

    ``lasting`` are settings with which an answer does not end before that; ``bad`` are a prompt and
    generation settings that it must refuse; ``size`` is the side of the images.
    """

    spec: LoadSpec
    long: int = 600
    lasting: Mapping[str, Any] = field(default_factory=dict)
    bad: tuple[str, dict[str, Any]] = ("BAD" * 5000, {})
    size: int = 56
    seeds: bool = True

    @contextmanager
    def opened(self) -> Iterator[Engine]:
        engine = Engine(make_backend(self.spec), self.spec.engine)
        try:
            engine.load(lambda _: None, threading.Event()).result(SECONDS)
            yield engine
        finally:
            assert engine.close()

    def ask(
        self, text: str, *, number: int = 0, interactive: bool = True, schema: Any = None, **generation: Any
    ) -> Request:
        """A question about one image; 12 tokens are enough for most tests."""
        image = picture(number).resize((self.size, self.size))
        return Request(
            messages=(Message("user", (ImageRef(0), text)),),
            images=(image,),
            image_keys=(f"{number} {self.size}",),
            processor_kwargs={"do_resize": False} if self.size == 56 else {},
            generation=GenerationConfig(**{"max_new_tokens": 12, **generation}),
            interactive=interactive,
            schema=schema,
        )

    def row(self, number: int, **settings: Any) -> Request:
        """The ``number``-th row of a table."""
        return self.ask(f"row {number}", number=number, interactive=False, **settings)


def answered(request: Request) -> str:
    """What the scripted engines say: sure of itself, long where a long answer is allowed."""
    prompt = request.messages[-1].text
    if prompt.startswith("BAD"):
        raise ValueError("a bad request")
    if request.schema is not None:
        return '{"kind": "dog"}'
    return " ".join([prompt, *(f"word {i}" for i in range(request.generation.max_new_tokens))])


@contextmanager
def scripted(folder: Path) -> Iterator[Case]:
    yield Case(LoadSpec(model="m", engine="scripted", script=answered, engine_args={"delay": 0.002}))


@contextmanager
def transformers_qwen(folder: Path) -> Iterator[Case]:
    from engine_models import make_qwen

    model = str(make_qwen(folder / "qwen"))
    yield Case(LoadSpec(model=model, engine="transformers", device_map="cpu", dtype="float32"))


@contextmanager
def openai_loopback(folder: Path) -> Iterator[Case]:
    from chat_server import Raw

    def reply(body: dict[str, Any]) -> Any:
        prompt = prompt_of(body)
        if prompt.startswith("BAD"):
            return Raw(400, {"error": {"message": "maximum context length is 1024 tokens"}})
        if "response_format" in body:
            return '{"kind": "dog"}'
        return " ".join([prompt, *(f"word {i}" for i in range(body["max_tokens"]))])

    with chat_server(answer=reply, delay=0.002) as chat:
        yield Case(LoadSpec(model="tiny", engine="openai", base_url=chat.url, max_concurrency=8))


@contextmanager
def ray_replicas(folder: Path) -> Iterator[Case]:
    from ray_cluster import light_imports

    with light_imports():
        args = {"engine": "scripted", "slots": 4, "delay": 0.002}
        spec = LoadSpec(model="m", engine="ray", script=answered, replicas=2, engine_args=args)
        yield Case(spec)


ENGINES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "scripted": (scripted, "json"),
    "transformers": (transformers_qwen, "transformers"),
    "openai": (openai_loopback, "openai"),
    "ray": (ray_replicas, "ray"),
}
"""Name → (what opens it, the package that it needs)."""
MARKS = {"ray": pytest.mark.ray}


@pytest.fixture(scope="module", params=[pytest.param(name, marks=MARKS.get(name, ())) for name in ENGINES])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    opener, package = ENGINES[request.param]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    with opener(tmp_path_factory.mktemp("engine")) as found:
        yield found


@pytest.fixture(scope="module")
def engine(case: Case) -> Iterator[Engine]:
    """An open engine that the tests share; those that close one open their own."""
    with case.opened() as found:
        yield found


# Many requests ----------------------------------------------------------------------------------------------


def test_every_row_once_and_as_if_asked_alone(case: Case, engine: Engine) -> None:
    done = list(generate(engine, (case.row(i) for i in range(20))))
    assert sorted(index for index, _ in done) == list(range(20))
    assert [completion.error for _, completion in done] == [None] * 20
    texts = {index: completion.text for index, completion in done}
    for index in (0, 7, 19):
        alone = engine.submit(case.row(index)).result(SECONDS)
        assert texts[index] == alone.text


def test_requests_are_pulled_lazily_and_answers_come_early(case: Case, engine: Engine) -> None:
    pulled = itertools.count()
    last = 0

    def endless() -> Iterator[Request]:
        nonlocal last
        for last in pulled:
            yield case.row(last % 5, max_new_tokens=3)

    answers = generate(engine, endless(), window=3)
    for taken in range(1, 8):
        next(answers)
        assert last < taken + 3
    answers.close()


def test_a_bad_request_fails_alone(case: Case, engine: Engine) -> None:
    prompt, settings = case.bad
    rows = [case.row(0), case.ask(prompt, interactive=False, **settings), case.row(2)]
    done = dict(generate(engine, rows))
    assert isinstance(done[1].error, VLMError)
    assert [done[index].error for index in (0, 2)] == [None, None]
    assert done[0].text == engine.submit(rows[0]).result(SECONDS).text


def test_an_error_in_the_source_reaches_the_caller(case: Case, engine: Engine) -> None:
    def broken() -> Iterator[Request]:
        yield case.row(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(generate(engine, broken()))
    assert engine.submit(case.row(1)).result(SECONDS).error is None


# One request ------------------------------------------------------------------------------------------------


def test_streaming_equals_not_streaming(case: Case, engine: Engine) -> None:
    events = list(stream(engine, case.ask("tell me")))
    done = events.pop()
    assert isinstance(done, Completion)
    assert done.error is None
    assert "".join(str(piece) for piece in events) == done.text
    assert done.text
    unhurried = engine.submit(case.ask("tell me", interactive=False)).result(SECONDS)
    assert unhurried.text == done.text


def test_the_limit_and_the_usage_are_kept(case: Case, engine: Engine) -> None:
    done = engine.submit(case.ask("tell me", max_new_tokens=4)).result(SECONDS)
    usage = done.usage
    assert usage.finish_reason in ("length", "stop")
    assert usage.new_tokens is None or 0 < usage.new_tokens <= 4
    assert usage.prompt_tokens is None or usage.prompt_tokens > 0
    assert usage.seconds is not None
    assert usage.seconds >= 0
    assert done.seen_sizes is None or done.seen_sizes == ((case.size, case.size),)


def test_a_seed_repeats_a_sampled_answer(case: Case, engine: Engine) -> None:
    if not (case.seeds and engine.capabilities.sampling):
        pytest.skip("this engine does not promise seeds")
    first, again, other = (
        engine.submit(case.ask("tell me", temperature=1.0, seed=seed)).result(SECONDS) for seed in (3, 3, 4)
    )
    assert (first.error, first.text) == (None, again.text)
    assert other.error is None


def test_a_schema_is_followed_or_refused(case: Case, engine: Engine) -> None:
    done = engine.submit(case.ask("what is it?", schema={"json": SCHEMA}, max_new_tokens=60)).result(SECONDS)
    if done.error is not None:
        assert isinstance(done.error, CapabilityError | SchemaError)
    elif engine.capabilities.schema and done.usage.finish_reason == "stop":
        assert json.loads(done.text)["kind"] in ("cat", "dog")


# Stopping ---------------------------------------------------------------------------------------------------


def test_cancel_keeps_the_text_so_far_and_spares_the_others(case: Case, engine: Engine) -> None:
    other = engine.submit(case.ask("two", number=3))
    for question in ("one", "three", "four", "five"):  # an answer may end by itself before the word arrives
        stopped = engine.submit(case.ask(question, max_new_tokens=case.long))
        next(stopped.events())
        stopped.cancel()
        done = stopped.result(SECONDS)
        if done.usage.finish_reason != "stop":
            break
    assert done.usage.finish_reason == "cancelled"
    assert done.text == stopped.text
    assert done.error is None
    assert other.result(SECONDS).error is None


def test_cancelled_before_it_began(case: Case, engine: Engine) -> None:
    rows = [engine.submit(case.row(i, max_new_tokens=case.long)) for i in range(3)]
    for ticket in rows:
        ticket.cancel()
    assert {ticket.result(SECONDS).usage.finish_reason for ticket in rows} == {"cancelled"}


def test_leaving_early_cancels_what_is_outstanding(case: Case, engine: Engine) -> None:
    answers = generate(engine, (case.row(i, max_new_tokens=3 if i == 0 else case.long) for i in range(4)))
    next(answers)
    answers.close()
    assert engine.submit(case.row(1)).result(SECONDS).error is None


def test_closing_fails_what_is_open_and_may_be_repeated(case: Case) -> None:
    with case.opened() as own:
        ticket = own.submit(case.ask("one", max_new_tokens=case.long, **case.lasting))
        next(ticket.events())
        assert own.close()
        assert own.close()
        assert isinstance(ticket.result(SECONDS).error, ModelUnloaded)
        with pytest.raises(ModelUnloaded):
            own.submit(case.ask("two"))
    names = [thread.name for thread in threading.enumerate()]
    assert names.count(f"vlm_nb-{case.spec.engine}") <= 1  # the shared one


def test_what_is_open_tells_its_name_and_leaves_the_spec_alone(case: Case) -> None:
    before = dataclasses.asdict(dataclasses.replace(case.spec, script=None))
    with case.opened() as own:
        assert own.info is not None
        assert own.info.name == case.spec.model
        assert own.slots >= 1
    assert dataclasses.asdict(dataclasses.replace(case.spec, script=None)) == before
