"""In-flight batching when memory runs out, when a row is bad, and for models that cannot do it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_helpers import about, loaded, noise
from engine_models import make_qwen
from flight import Flight, assert_all_same, flying, stir
from tiny_models import make_tiny

from vlm_nb.engines.base import generate
from vlm_nb.engines.hf import gate, scheduler, static
from vlm_nb.engines.hf.leftpad import Block
from vlm_nb.errors import GenerationError, OutOfMemory
from vlm_nb.request import Request

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_qwen(tmp_path_factory.mktemp("qwen"), hidden=64)


@pytest.fixture(params=[False, True], ids=["reuse off", "reuse on"])
def qwen(
    qwen_folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Flight]:
    with flying(qwen_folder, monkeypatch, max_batch_size=8, engine_args={"reuse": request.param}) as flight:
        stir(flight)
        yield flight


def batch() -> list[Request]:
    return [about(noise(84, 56, seed=n), question="why? " * (1 + n % 2), max_new_tokens=14) for n in range(8)]


def broken(plain: Callable[..., Any], when: Callable[[int], bool], after: bool = False) -> Callable[..., Any]:
    """``plain``, out of memory at the calls that ``when`` names; ``after`` its work is done or before."""
    count = itertools.count()

    def call(*args: Any, **options: Any) -> Any:
        fail = when(next(count))
        if fail and not after:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        result = plain(*args, **options)
        if fail:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return result

    return call


def check(flight: Flight) -> None:
    requests = batch()
    tickets = flight.admit(*requests)
    while flight.backend.running:
        flight.step()
    for ticket, request in zip(tickets, requests, strict=True):
        expected = flight.single(request)
        answer = ticket.result(0)
        assert answer.error is None, answer.error
        assert answer.usage.new_tokens == sum(t not in flight.loop._loaded.eos for t in expected.tokens)
        shown = [event for event in ticket.events() if isinstance(event, str)]
        assert "".join(shown) == answer.text, "nothing is shown twice"
    assert_all_same([flight.answer(t) for t in tickets], [flight.single(r) for r in requests])


def test_out_of_memory_at_prefill_halves_and_goes_on(qwen, monkeypatch):
    monkeypatch.setattr(scheduler, "prefill", broken(scheduler.prefill, lambda n: n == 0))
    check(qwen)
    assert qwen.backend.slots < 8


def test_out_of_memory_at_a_join_sends_everyone_back(qwen, monkeypatch):
    monkeypatch.setattr(Block, "join", broken(Block.join, lambda n: n == 0))
    check(qwen)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("at", [0, 5, 9])
def test_out_of_memory_at_each_layer_of_a_decode(qwen, monkeypatch, layer, at):
    """The layers before it have a column more than those behind it."""
    attention = qwen.model.model.language_model.layers[layer].self_attn
    plain, count = attention.forward, itertools.count()

    def forward(*args: Any, **options: Any) -> Any:
        hidden = options.get("hidden_states", args[0] if args else None)
        if hidden.shape[1] == 1 and next(count) == at:
            plain(*args, **options)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(*args, **options)

    monkeypatch.setattr(attention, "forward", forward)
    check(qwen)
    assert qwen.backend.slots <= 4


def test_out_of_memory_in_a_sliding_layer_starts_its_rows_again(tmp_path, monkeypatch):
    folder = make_tiny("gemma3", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(Block, "decode", broken(Block.decode, lambda n: n == 3, after=True))
    with flying(folder, monkeypatch, max_batch_size=4) as flight:
        requests = [about(noise(56, 56, seed=n), max_new_tokens=12) for n in range(4)]
        tickets = flight.admit(*requests)
        while flight.backend.running:
            flight.step()
        for ticket, request in zip(tickets, requests, strict=True):
            tokens = flight.single(request).tokens
            assert ticket.result(0).text == flight.backend._loaded.tokenizer.decode(tokens).rstrip("\ufffd")


def test_a_row_that_does_not_fit_alone_gets_the_error_and_the_others_answers(qwen, monkeypatch):
    plain = scheduler.prefill

    def picky(model: Any, rows: Any, *args: Any) -> Any:
        if any(row.encoded.image_tokens > 10 for row in rows):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(model, rows, *args)

    monkeypatch.setattr(scheduler, "prefill", picky)
    requests = [*batch()[:3], about(noise(112, 112), max_new_tokens=5), *batch()[3:5]]
    tickets = qwen.admit(*requests)
    for _ in range(500):
        if qwen.backend.running:
            qwen.step()
    errors = [ticket.result(0).error for ticket in tickets]
    assert isinstance(errors.pop(3), OutOfMemory)
    assert errors == [None] * 5


def test_decoding_that_does_not_fit_even_alone_ends(qwen, monkeypatch):
    monkeypatch.setattr(Block, "decode", broken(Block.decode, lambda n: True))
    tickets = qwen.admit(*batch()[:3])
    for _ in range(50):
        if qwen.backend.running:
            qwen.step()
    answers = [ticket.result(0) for ticket in tickets]
    assert sum(isinstance(answer.error, OutOfMemory) for answer in answers) >= 2
    assert all(answer.error or answer.usage.new_tokens < 5 for answer in answers), "ended before a decode"


def test_a_bad_row_fails_alone(qwen, monkeypatch):
    plain = scheduler.prefill
    bad = about(noise(84, 56, seed=66), question="why? ", max_new_tokens=5)

    def picky(model: Any, rows: Any, *args: Any) -> Any:
        if any(row.ticket.request is bad for row in rows):
            raise ValueError("boom")
        return plain(model, rows, *args)

    monkeypatch.setattr(scheduler, "prefill", picky)
    tickets = qwen.admit(*batch()[:3], bad, *batch()[3:5])
    while qwen.backend.running:
        qwen.step()
    errors = [ticket.result(0).error for ticket in tickets]
    failed = errors.pop(3)
    assert isinstance(failed, GenerationError)
    assert "boom" in str(failed)
    assert errors == [None] * 5


# Which models -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "reason"), [("qwen3_5", "tested"), ("florence2", "encoder-decoder")])
def test_other_models_are_answered_in_static_batches_and_say_so(kind, reason, tmp_path):
    with loaded(make_tiny(kind, tmp_path / kind)) as engine:
        assert engine.info.details["loop"].startswith("static batches: ")
        assert reason in engine.info.details["loop"]
        assert not engine.capabilities.in_flight
        if kind == "qwen3_5":
            requests = [about(noise(64, 64, seed=n), max_new_tokens=4) for n in range(3)]
            assert all(answer.error is None for _, answer in generate(engine, requests))


def test_a_model_in_flight_says_so(qwen_folder):
    with loaded(qwen_folder) as engine:
        assert engine.info.details["loop"] == "in flight"
        assert engine.capabilities.in_flight
    with loaded(qwen_folder, engine_args={"in_flight": False}) as engine:
        assert engine.info.details["loop"] == "static batches: asked for"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: setattr(model.generation_config, "no_repeat_ngram_size", 3), "no_repeat_ngram_size"),
        (lambda model: setattr(model.config, "is_encoder_decoder", True), "encoder-decoder"),
        (lambda model: setattr(model.config, "model_type", "llama4"), "llama4 is not among"),
        (lambda model: setattr(type(model), "generate", lambda self: None), "own generate"),
        (lambda model: setattr(type(model), "__module__", "somebody.s"), "own code"),
    ],
)
def test_the_gate_says_why(qwen_folder, change, reason):
    from transformers import Qwen2_5_VLForConditionalGeneration as Base

    model = type("Copy", (Base,), {"__module__": Base.__module__}).from_pretrained(qwen_folder)
    assert gate.refusal(model) is None
    change(model)
    assert reason in (gate.refusal(model) or "")


def test_a_cache_that_is_not_as_expected_leads_to_static_batches(qwen_folder, monkeypatch):
    monkeypatch.setattr(gate, "unexpected", lambda cache, width: "a strange cache")
    with loaded(qwen_folder) as engine:
        answers = dict(generate(engine, batch()))
        assert all(answer.error is None for answer in answers.values())
        assert engine.info.details["loop"] == "static batches: a strange cache"
        assert not engine.capabilities.in_flight


def test_rows_follow_free_memory(qwen, monkeypatch):
    loop = qwen.loop
    monkeypatch.setattr(loop, "_memory", lambda: 3 * max(row.most for row in loop.rows))
    check(qwen)
    assert max(qwen.widths) == 3


def test_the_room_is_counted_in_tokens(qwen):
    room = static.token_room(qwen.backend._loaded)
    assert room is None or room > 10_000
