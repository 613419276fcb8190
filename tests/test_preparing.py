"""Encoding ahead of the model: order, what overtakes, the cap in bytes, errors, cancelling and the end."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_helpers import about, loaded, noise, text
from engine_models import make_qwen
from transformers.cache_utils import DynamicLayer

from vlm_nb.engines.base import Ticket, generate
from vlm_nb.engines.hf.encoding import Encoded
from vlm_nb.engines.hf.preparing import Preparing, Task
from vlm_nb.engines.hf.room import COLUMNS, RoomyLayer
from vlm_nb.errors import ContextTooLong, GenerationError, ModelUnloaded
from vlm_nb.request import Request


def words(request: Request) -> str:
    return request.messages[0].text


def encoded(request: Request) -> Encoded:
    """A thousand bytes for each request."""
    return Encoded({"input_ids": torch.zeros(1, 125, dtype=torch.long)}, 125, None, ())


@contextmanager
def preparing(encode: Callable[[Request], Encoded] = encoded, **options: Any) -> Iterator[Preparing]:
    made = Preparing(encode, **{"threads": 1, **options})
    try:
        yield made
    finally:
        made.close()


def task(name: str, *, urgent: bool = False) -> Task:
    return Task(Ticket(text(name, interactive=urgent)), sampler=None)


def taken(made: Preparing, count: int) -> list[Task]:
    found: list[Task] = []
    deadline = time.monotonic() + 20
    while len(found) < count and time.monotonic() < deadline:
        made.wait(0.05)
        if (one := made.take()) is not None:
            found.append(one)
    return found


def names(tasks: list[Task]) -> list[str]:
    return [words(one.ticket.request) for one in tasks]


@pytest.mark.parametrize("threads", [1, 2])
def test_tasks_are_taken_in_order_although_later_ones_are_ready_first(threads):
    later = threading.Event()

    def encode(request: Request) -> Encoded:
        if words(request) == "0" and threads == 2:
            assert later.wait(10)
        elif words(request) == "1":
            later.set()
        return encoded(request)

    with preparing(encode, threads=threads) as made:
        for n in range(6):
            made.add(task(str(n)))
        assert names(taken(made, 6)) == list("012345")
        assert len(made) == 0


def test_urgent_tasks_overtake_those_that_wait_and_keep_their_own_order():
    go = threading.Event()

    def encode(request: Request) -> Encoded:
        assert go.wait(10)
        return encoded(request)

    with preparing(encode) as made:
        for name in "ab":
            made.add(task(name))
        for name in "XY":
            made.add(task(name, urgent=True))
        made.add(task("c"))
        go.set()
        until(lambda: all(one.result is not None for one in made._tasks))  # "a" was begun before X and Y came
        assert names(taken(made, 5)) == list("XYabc")


def test_no_more_is_encoded_while_the_ready_ones_fill_the_cap():
    begun: list[str] = []

    def encode(request: Request) -> Encoded:
        begun.append(words(request))
        return encoded(request)

    with preparing(encode, cap=3000) as made:
        for n in range(10):
            made.add(task(str(n)))
        made.wait(10)
        until(lambda: len(begun) == 3)
        time.sleep(0.1)
        assert begun == ["0", "1", "2"]
        made.add(task("urgent", urgent=True))
        until(lambda: "urgent" in begun)
        assert len(begun) == 4
        assert len(taken(made, 11)) == 11
        assert begun[4:] == [str(n) for n in range(3, 10)]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def test_an_error_is_its_tasks_own_and_keeps_no_frames():
    def encode(request: Request) -> Encoded:
        if words(request) == "bad":
            raise ValueError("boom")
        return encoded(request)

    with preparing(encode) as made:
        for name in ("a", "bad", "b"):
            made.add(task(name))
        results = [one.result for one in taken(made, 3)]
    assert isinstance(results[1], GenerationError)
    assert "boom" in str(results[1])
    assert results[1].__traceback__ is None
    assert isinstance(results[0], Encoded)
    assert isinstance(results[2], Encoded)


def test_what_is_forgotten_is_neither_begun_nor_taken():
    begun: list[str] = []
    go = threading.Event()

    def encode(request: Request) -> Encoded:
        begun.append(words(request))
        assert go.wait(10)
        return encoded(request)

    with preparing(encode) as made:
        tasks = [task(name) for name in "abc"]
        for one in tasks:
            made.add(one)
        until(lambda: begun == ["a"])
        made.forget(tasks[0].ticket)
        made.forget(tasks[1].ticket)
        go.set()
        assert names(taken(made, 1)) == ["c"]
        assert begun == ["a", "c"]
        assert made.tickets == []


def test_closing_ends_the_threads_and_lets_go_of_the_encoder():
    class Heavy:
        def encode(self, request: Request) -> Encoded:
            return encoded(request)

    import weakref

    heavy = Heavy()
    gone = weakref.ref(heavy)
    made = Preparing(heavy.encode, threads=2)
    made.add(task("a"))
    assert names(taken(made, 1)) == ["a"]
    made.close()
    assert not any(thread.is_alive() for thread in made._threads)
    del heavy, made
    assert gone() is None


# In the engine ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_qwen(tmp_path_factory.mktemp("qwen"), hidden=64)


def test_a_request_that_cannot_be_encoded_fails_alone(folder):
    with loaded(folder) as engine:
        context = engine.info.context_length
        bad = about(noise(56, 56), question="long " * context, max_new_tokens=2)
        good = [about(noise(56, 56, seed=n), max_new_tokens=3) for n in range(3)]
        answers = dict(generate(engine, [good[0], bad, *good[1:]]))
    assert isinstance(answers.pop(1).error, ContextTooLong)
    assert [answer.error for answer in answers.values()] == [None] * 3


@pytest.mark.parametrize("options", [{}, {"in_flight": False}], ids=["in flight", "static"])
def test_a_request_cancelled_or_unloaded_while_it_is_encoded_ends(folder, options):
    with loaded(folder, engine_args=options) as engine:
        begun, go = threading.Event(), threading.Event()
        encoder = engine._backend._loaded.encoder
        plain = encoder._process

        def slow(*args: Any) -> Any:
            begun.set()
            assert go.wait(20)
            return plain(*args)

        encoder._process = slow
        first, second = engine.submit(about(noise(56, 56))), engine.submit(about(noise(56, 56, seed=1)))
        assert begun.wait(20)
        first.cancel()
        assert first.result(20).usage.finish_reason == "cancelled"
        closing = threading.Thread(target=engine.close)
        closing.start()
        go.set()
        assert isinstance(second.result(20).error, ModelUnloaded)
        closing.join(20)
        assert not closing.is_alive()
        assert not [t for t in threading.enumerate() if t.name.startswith("vlm_nb-encode")]


def test_a_tokenizer_that_is_in_use_is_asked_again(folder):
    with loaded(folder) as engine:
        encoder = engine._backend._loaded.encoder
        plain, calls = encoder._processor, []

        class Busy:
            image_processor = plain.image_processor
            apply_chat_template = staticmethod(plain.apply_chat_template)

            def __call__(self, **options: Any) -> Any:
                calls.append(options)
                if len(calls) < 3:
                    raise RuntimeError("Already borrowed")
                return plain(**options)

        encoder._processor = Busy()
        answer = engine.submit(about(noise(56, 56), max_new_tokens=3)).result(60)
    assert answer.error is None
    assert len(calls) == 3


# Room -------------------------------------------------------------------------------------------------------


def stock(rows: int, columns: int, seed: int) -> DynamicLayer:
    layer = DynamicLayer()
    drawn = torch.Generator().manual_seed(seed)
    layer.update(*(torch.randn(rows, 2, columns, 4, generator=drawn) for _ in range(2)))
    return layer


def padded(part: torch.Tensor, columns: int) -> torch.Tensor:
    return torch.nn.functional.pad(part, (0, 0, columns - part.shape[2], 0))


@pytest.mark.parametrize("seed", range(8))
def test_a_layer_with_room_holds_what_the_stock_layer_holds(seed):
    """Random tokens, joins and leaves; what is left of a row's own columns may be anything finite."""
    rng = random.Random(seed)
    plain = stock(3, 5, seed)
    roomy, lengths = RoomyLayer(stock(3, 5, seed)), [5] * 3
    for turn in range(60 + 2 * COLUMNS):
        kind = rng.choice(["token"] * 8 + ["keep", "join", "cut"])
        if kind == "token":
            new = [torch.randn(len(lengths), 2, 1, 4) for _ in range(2)]
            shown = roomy.update(*new)
            plain.update(*new)
            assert shown[0] is roomy.keys
            lengths = [length + 1 for length in lengths]
        elif kind == "join":
            other = stock(rng.randint(1, 3), rng.randint(3, 40), seed * 1000 + turn)
            width = max(plain.keys.shape[2], other.keys.shape[2])
            roomy.join(other.keys, other.values)
            plain.keys = torch.cat([padded(part.keys, width) for part in (plain, other)])
            plain.values = torch.cat([padded(part.values, width) for part in (plain, other)])
            lengths += [other.keys.shape[2]] * len(other.keys)
        elif kind == "keep" and len(lengths) > 2:
            rows = rng.sample(range(len(lengths)), len(lengths) - rng.randint(1, 2))
            rows = sorted(rows) if rng.random() < 0.5 else rows
            lengths = [lengths[row] for row in rows]
            roomy.keep(rows, max(lengths))
            plain.keys, plain.values = (
                part[rows][:, :, -max(lengths) :] for part in (plain.keys, plain.values)
            )
        elif kind == "cut":
            new = [torch.randn(len(lengths), 2, 1, 4) for _ in range(2)]
            roomy.update(*new)
            roomy.cut(max(lengths))
        for mine, theirs in ((roomy.keys, plain.keys), (roomy.values, plain.values)):
            assert mine.shape == theirs.shape
            assert bool(mine.isfinite().all())
            for row, length in enumerate(lengths):
                assert torch.equal(mine[row, :, -length:], theirs[row, :, -length:])
    held = roomy._rooms[0].numel()
    assert held < 6 * plain.keys.numel() + 6 * COLUMNS * plain.keys[:, :, :1].numel()


def test_columns_that_a_broken_row_left_do_not_reach_its_successor():
    layer = RoomyLayer(stock(2, 6, 0))
    layer.update(*(torch.full((2, 2, 1, 4), torch.nan) for _ in range(2)))
    layer.keep([0], 7)
    layer.join(*(torch.ones(1, 2, 3, 4) for _ in range(2)))
    assert bool(layer.keys[1].isfinite().all())
    assert bool(layer.values[1].isfinite().all())
