"""Answers that repeat themselves without end are cut; those that only look like it are not."""

from __future__ import annotations

import json
import random
import threading
from types import SimpleNamespace

import pandas as pd
import pytest
from chat_server import chat_server
from engine_helpers import about, loaded, noise, text
from engine_models import make_qwen
from hypothesis import given, settings
from hypothesis import strategies as st

import vlm_nb
from vlm_nb.engines.base import Engine, Ticket, generate
from vlm_nb.engines.openai import OpenAIBackend
from vlm_nb.engines.runaway import CHARACTERS, TIMES, TOKENS, LoopWatch, ends_in_loop
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.engines.vllm import VLLMBackend
from vlm_nb.errors import OptionError
from vlm_nb.request import GenerationConfig

BOX = '{{"bbox_2d": [{}, {}, {}, {}], "label": "red car"}},\n'


def boxes(count: int) -> str:
    drawn = random.Random(7)
    rows = [[drawn.randrange(1000) for _ in range(4)] for _ in range(count)]
    return "[" + "".join(BOX.format(*row) for row in rows)


LEGITIMATE = {
    "laughter": "ha " * 60,
    "boxes that differ": boxes(400),
    "boxes in a grid": "".join(
        BOX.format(x, y, x + 9, y + 9) for y in range(0, 400, 20) for x in range(0, 400, 20)
    ),
    "the same box a few times": BOX.format(1, 2, 3, 4) * 7,
    "a table with empty rows": "| name | price | count |\n|---|---|---|\n" + "|  |  |  |\n" * 60,
    "a table of zeros with row names": "".join(f"| {n} | 0 | 0 | 0 | 0 |\n" for n in range(300)),
    "a ruled line": "-" * 1_000,
    "a form": "Name: " + "_" * 80 + "\nStreet: " + "_" * 80 + "\nTown: " + "_" * 80,
    "counting": "".join(f"{n}. a person in the crowd\n" for n in range(500)),
    "a refrain": ("We all live in a yellow submarine, yellow submarine. " * 2 + "So we sailed. ") * 6,
    "a matrix of zeros": json.dumps([[0] * 10] * 10),
    "deep brackets": "[" * 600 + "]" * 600,
    "DNA": "".join(random.Random(3).choices("ACGT", k=20_000)),
}  # fmt: skip
LOOPS = {
    "one word": "the " * 400,
    "one character": "!" * 1_500,
    "one box": "[" + BOX.format(1, 2, 3, 4) * 40,
    "two boxes in turn": boxes(30) + (BOX.format(1, 2, 3, 4) + BOX.format(5, 6, 7, 8)) * 15,
    "a sentence": "The image shows a cat. " * 60,
    "a paragraph": "It begins well. " + boxes(10) * 9,
    "empty rows without end": "| a | b |\n" + "|  |  |\n" * 200,
}


@pytest.mark.parametrize("answer", LEGITIMATE.values(), ids=LEGITIMATE.keys())
def test_legitimate_repeats_are_left_alone(answer):
    for end in range(0, len(answer) + 1, 31):
        assert not ends_in_loop(answer[:end], CHARACTERS)
    tokens = [hash(answer[i : i + 4]) for i in range(0, len(answer), 4)]
    assert not any(ends_in_loop(tokens[:end], TOKENS) for end in range(0, len(tokens) + 1, 3))


@pytest.mark.parametrize("answer", LOOPS.values(), ids=LOOPS.keys())
def test_loops_are_seen(answer):
    assert ends_in_loop(answer, CHARACTERS)
    watch = LoopWatch.of_text()
    assert any(watch.sees_loop(answer[:end]) for end in range(len(answer) + 1))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=200), st.lists(st.integers(0, 5), min_size=1, max_size=256))
def test_any_block_that_is_repeated_often_enough_is_a_loop(before, block):
    times = max(TIMES, -(-TOKENS // len(block)))
    assert ends_in_loop(before + block * times, TOKENS)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=90), st.integers(0, TOKENS - 1))
def test_one_change_within_the_last_tokens_is_no_loop(block, back):
    answer = block * (2_000 // len(block))
    answer[-1 - back] = 99
    assert not ends_in_loop(answer, TOKENS)


def test_a_million_characters_take_no_time_to_watch():
    watch, answer = LoopWatch.of_text(), boxes(20_000)
    looks = sum(not watch.sees_loop(answer[:end]) for end in range(0, len(answer), 50_000))
    assert looks == len(range(0, len(answer), 50_000))


# Engines ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    """With tied random weights a model says one token for ever."""
    return make_qwen(tmp_path_factory.mktemp("tied"), tie=True)


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    return make_qwen(tmp_path_factory.mktemp("varied"), hidden=64)


@pytest.mark.parametrize("in_flight", [True, False])
def test_a_model_that_loops_is_cut(tied, in_flight):
    with loaded(tied, engine_args={"in_flight": in_flight}) as engine:
        assert (engine.info.details["loop"] == "in flight") is in_flight
        requests = [about(noise(56, 56, n), question="why " * n, max_new_tokens=900) for n in range(3)]
        for _, answer in generate(engine, requests):
            assert answer.error is None
            assert answer.usage.finish_reason == "runaway"
            assert TOKENS <= answer.usage.new_tokens < 450
            assert len(answer.token_logprobs) == answer.usage.new_tokens
        free = engine.submit(text(max_new_tokens=400, cut_repeats=False)).result(60)
        assert (free.usage.finish_reason, free.usage.new_tokens) == ("length", 400)
        asked_for = engine.submit(text(max_new_tokens=600, min_new_tokens=500)).result(60)
        assert asked_for.usage.new_tokens >= 500


def test_the_neighbours_of_a_loop_go_on(tied):
    with loaded(tied) as engine:
        alone = engine.submit(about(noise(56, 84, 5), max_new_tokens=40)).result(60)
        looping = engine.submit(text("go", max_new_tokens=900))
        beside = [engine.submit(about(noise(56, 84, 5), max_new_tokens=40)) for _ in range(3)]
        assert {ticket.result(60).text for ticket in beside} == {alone.text}
        assert looping.result(60).usage.finish_reason == "runaway"


def test_a_model_that_does_not_loop_is_left_alone(varied):
    with loaded(varied) as engine:
        requests = [about(noise(56, 56, n), max_new_tokens=600, temperature=1.0, seed=n) for n in range(4)]
        reasons = [answer.usage.finish_reason for _, answer in generate(engine, requests)]
        assert "runaway" not in reasons
        assert "length" in reasons


def server_engine(url: str) -> Engine:
    return Engine(OpenAIBackend(LoadSpec(model="tiny", engine="openai", base_url=url)), "openai")


def test_a_server_that_loops_is_left():
    with chat_server(answer=lambda _: "I see a dog. " * 3_000) as chat:
        engine = server_engine(chat.url)
        try:
            engine.load(lambda _: None, threading.Event()).result(20)
            answer = engine.submit(text(max_new_tokens=20_000)).result(60)
            assert answer.error is None
            assert answer.usage.finish_reason == "runaway"
            assert CHARACTERS <= len(answer.text) < 10_000
            whole = engine.submit(text(max_new_tokens=20_000, cut_repeats=False)).result(60)
            assert (whole.usage.finish_reason, len(whole.text)) == ("stop", 39_000)
        finally:
            engine.close()


def test_vllm_aborts_a_loop():
    """vLLM's own engine is stood in for by the two methods that a step needs."""
    aborted = []
    backend = VLLMBackend(LoadSpec(model="m", engine="vllm"))
    answer = SimpleNamespace(text="", token_ids=[], logprobs=None, finish_reason=None)
    output = SimpleNamespace(request_id="0", outputs=[answer], finished=False, prompt_token_ids=[1])
    backend._engine = SimpleNamespace(step=lambda: [output], abort_request=aborted.extend)
    ticket = Ticket(text(max_new_tokens=5_000))
    backend._tickets["0"], backend._watches["0"] = ticket, LoopWatch.of_tokens()
    while not ticket.done and len(answer.token_ids) < 1_000:
        answer.token_ids = [*answer.token_ids, 7]
        answer.text += "x"
        backend.step()
    assert aborted == ["0"]
    assert ticket.completion.usage.finish_reason == "runaway"
    assert not backend.running


# Where it shows ---------------------------------------------------------------------------------------------


def test_it_shows_in_the_prediction_its_display_and_the_table(tied, fresh_registry):
    model = vlm_nb.load(str(tied), dtype="float32")
    one = model.ask(noise(56, 56), "what?", max_new_tokens=900)
    assert one.usage.finish_reason == "runaway"
    assert "runaway" in repr(one)
    assert "the answer repeated itself" in one._repr_mimebundle_()["text/html"]
    frame = pd.DataFrame({"image": [noise(56, 56, n) for n in range(3)]})
    with pytest.warns(UserWarning, match="3 of 3 answers repeated themselves"):
        asked = frame.vlm.ask("what?", max_new_tokens=900, show_progress=False)
    assert asked.attrs["vlm"]["calls"]["answer"]["runaway"] == 3
    assert asked["answer_error"].isna().all()
    with pytest.warns(UserWarning, match="3 of 3"):  # from the ledger, too
        known = frame.vlm.ask("what?", max_new_tokens=900, show_progress=False)
    assert known.attrs["vlm"]["calls"]["answer"]["known"] == 3


@pytest.mark.parametrize("bad", ["yes", 1, 0.0])
def test_the_switch_is_true_or_false(bad):
    with pytest.raises(OptionError, match=r"cut_repeats=.*expected True or False"):
        GenerationConfig(cut_repeats=bad)
