"""What is known already: image features and prompts' beginnings, by content, and never across contents."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_helpers import about, noise
from engine_models import make_qwen
from flight import Answer, Flight, assert_all_same, flying, stir
from tiny_models import make_tiny

from vlm_nb.engines.hf import encoding, gate, reuse, scheduler
from vlm_nb.engines.hf.kept import Kept
from vlm_nb.engines.hf.reuse import Reuse
from vlm_nb.request import GenerationConfig, ImageRef, Message, Request

# Some processors meet numpy 2 with this; nothing to do with batches.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
REUSE = {"engine_args": {}}


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_qwen(tmp_path_factory.mktemp("qwen"), hidden=64)


@pytest.fixture
def qwen(qwen_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flight]:
    with flying(qwen_folder, monkeypatch, max_batch_size=4, **REUSE) as flight:
        stir(flight)
        yield flight


def reuse_of(flight: Flight) -> Reuse:
    assert flight.loop._reuse is not None
    return flight.loop._reuse


def table(request: Request) -> Request:
    """The request as a table's row, not a person's."""
    return dataclasses.replace(request, interactive=False)


def check(flight: Flight, requests: list[Request]) -> list[Answer]:
    found = flight.run(requests)
    assert_all_same(found, [flight.single(request) for request in requests])
    return found


def cached(answers: list[Answer]) -> list[int]:
    return [answer.completion.usage.cached_tokens or 0 for answer in answers]


# Questions on one image -------------------------------------------------------------------------------------


def test_further_questions_on_an_image_begin_after_it(qwen):
    image = noise(112, 84)
    requests = [table(about(image, question=f"{n} is {'why? ' * n}", max_new_tokens=6)) for n in range(5)]
    answers = check(qwen, requests)
    prompts = [answer.completion.usage.prompt_tokens for answer in answers]
    first = cached(answers).index(0)
    assert cached(answers).count(0) == 1, "only one of the rows computes the image"
    for n in set(range(5)) - {first}:
        assert prompts[n] - cached(answers)[n] < 5 * n + len("0 is ") + len(
            "<|im_end|>\n<|im_start|>assistant\n"
        )
        assert cached(answers)[n] > answers[n].completion.usage.image_tokens


def test_known_and_new_images_are_prefilled_together(qwen, monkeypatch):
    """What of the known one lies in the window of the new tokens must not count as an image there."""
    known, new = noise(112, 112, seed=1), noise(112, 112, seed=2)
    qwen.run([about(known, question="Q" * 5)])
    groups, plain = [], scheduler.prefill

    def watched(model: Any, rows: Any, *args: Any) -> Any:
        groups.append([reuse_of(qwen).known(row) for row in rows])
        return plain(model, rows, *args)

    monkeypatch.setattr(scheduler, "prefill", watched)
    check(qwen, [about(known, question="X" * 30), about(new, question="yz" * 8)])
    assert len(groups) == 1
    assert sorted(map(bool, groups[0])) == [False, True]


def test_the_vision_tower_runs_once_for_an_image(qwen, monkeypatch):
    calls: list[int] = []
    plain = type(qwen.model).get_image_features

    def counted(self: Any, pixel_values: torch.Tensor, *args: Any, **options: Any) -> Any:
        calls.append(len(pixel_values))
        return plain(self, pixel_values, *args, **options)

    monkeypatch.setattr(type(qwen.model), "get_image_features", counted)
    image, other = noise(112, 84), noise(56, 84)
    qwen.run([about(image, question="a", max_new_tokens=2)])
    reuse_of(qwen).prefixes.clear()
    qwen.run([about(image, question="b", max_new_tokens=2), about(other, image, max_new_tokens=2)])
    assert calls == [48, 24], "patches of the first image, then of the other only"


def test_a_different_image_in_between_and_the_same_size_with_other_pixels(qwen):
    image, other = noise(84, 84, seed=1), noise(84, 84, seed=2)
    near = image.copy()
    near.putpixel((40, 40), (255, 0, 255))
    scores = [qwen.single(about(picture, max_new_tokens=1)).scores[0] for picture in (image, other, near)]
    assert (scores[0] - scores[1]).abs().max() > 0.1
    assert (scores[0] - scores[2]).abs().max() > 0.01
    for picture in (image, other, image, near, image, other, near):
        check(qwen, [about(picture, question="what is it?", max_new_tokens=8)])
        check(qwen, [table(about(picture, question="and where?", max_new_tokens=8))])


def test_answers_are_the_same_with_and_without_reuse(qwen_folder, monkeypatch):
    images = [noise(112, 84, seed=n) for n in range(3)]
    requests = [
        table(about(images[n % 3], question=f"{n}? " * (1 + n % 4), max_new_tokens=4 + n)) for n in range(12)
    ]
    requests += [about(images[0], images[1], max_new_tokens=7), about(images[1], images[0], max_new_tokens=7)]
    with flying(qwen_folder, monkeypatch) as without:
        stir(without)
        expected = without.run(requests)
    with flying(qwen_folder, monkeypatch, **REUSE) as flight:
        stir(flight)
        found = flight.run(requests)
        assert sum(cached(found)) > 0
        assert_all_same(found, expected)
        assert cached(expected) == [0] * len(requests)


def test_the_processors_options_are_part_of_an_images_key(qwen):
    image = noise(84, 56)
    plain = about(image)
    other = dataclasses.replace(plain, processor_kwargs={"do_resize": False, "do_normalize": False})
    with qwen.backend.context():
        encode = qwen.backend._loaded.encoder.encode
        assert encode(plain).image_keys != encode(other).image_keys
    check(qwen, [about(image, max_new_tokens=6)])
    check(qwen, [dataclasses.replace(other, generation=GenerationConfig(max_new_tokens=6))])


@pytest.mark.parametrize("mistake", ["all images look alike", "positions of the rest"])
def test_a_mistake_in_what_is_reused_is_seen(qwen, monkeypatch, mistake):
    plain = reuse._positions
    if mistake == "positions of the rest":
        monkeypatch.setattr(reuse, "_positions", lambda model, inputs: plain(model, inputs) + 1)
    else:
        monkeypatch.setattr(encoding, "_image_key", lambda image, options: "0" * 32)
    images = [noise(84, 84, seed=n) for n in (1, 1, 2)]
    requests = [about(image, question=f"what {n}?", max_new_tokens=8) for n, image in enumerate(images)]
    found = [qwen.run([request])[0] for request in requests]
    assert sum(cached(found)) > 0
    assert not all(one.same(qwen.single(request)) for one, request in zip(found, requests, strict=True))


# Conversations ----------------------------------------------------------------------------------------------


def turn(image: Any, *texts: str, tokens: int = 10) -> Request:
    """The next question of a conversation: ``texts`` are question, answer, question, …"""
    messages = [Message("user", (ImageRef(0), texts[0]))]
    for n, text in enumerate(texts[1:]):
        messages.append(Message("user" if n % 2 else "assistant", (text,)))
    return Request(
        messages=tuple(messages),
        images=(image,),
        generation=GenerationConfig(max_new_tokens=tokens),
        processor_kwargs={"do_resize": False},
    )


def test_the_next_turn_computes_new_tokens_only(qwen):
    image, said = noise(112, 112), ["what is it?"]
    lengths: list[int] = []
    for question in ("and where?", "and why?", "and now?"):
        (answer,) = check(qwen, [turn(image, *said)])
        usage = answer.completion.usage
        if lengths:
            # the answer as text may be other tokens than the model wrote; all before it is known
            assert usage.cached_tokens >= lengths[-1]
            assert usage.cached_tokens < usage.prompt_tokens
        lengths.append(usage.prompt_tokens)
        said += [answer.completion.text or "?", question]


def test_an_answer_that_reads_back_as_its_own_tokens_is_known_too(qwen):
    image = noise(112, 112)
    loaded = qwen.backend._loaded
    ascii_only = [
        token for token in range(len(loaded.tokenizer)) if loaded.tokenizer.decode([token]).isalpha()
    ]
    head = qwen.model.lm_head.weight
    bias = torch.full((head.shape[0],), -1e4)
    bias[ascii_only] = 0
    qwen.model.lm_head.bias = torch.nn.Parameter(bias)
    (first,) = qwen.run([turn(image, "what is it?")])
    (second,) = qwen.run([turn(image, "what is it?", first.completion.text, "and where?")])
    before = first.completion.usage
    assert second.completion.usage.cached_tokens == before.prompt_tokens + before.new_tokens - 1
    assert second.same(qwen.single(turn(image, "what is it?", first.completion.text, "and where?")))


def test_an_image_that_joins_later_is_seen(qwen):
    one, two = noise(84, 84, seed=1), noise(112, 56, seed=2)
    (first,) = check(qwen, [about(one, question="what is it?", max_new_tokens=6)])
    messages = (
        Message("user", (ImageRef(0), "what is it?")),
        Message("assistant", (first.completion.text or "?",)),
        Message("user", (ImageRef(1), "and this?")),
    )
    later = Request(
        messages=messages,
        images=(one, two),
        generation=GenerationConfig(max_new_tokens=8),
        processor_kwargs={"do_resize": False},
    )
    (second,) = check(qwen, [later])
    assert 9 < second.completion.usage.cached_tokens < second.completion.usage.prompt_tokens - 8


# Families ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(gate.FEATURES))
def test_families_answer_with_reuse_as_without(kind, tmp_path, monkeypatch):
    step = {"qwen3_vl": 32}.get(kind, 28)
    images = [noise(2 * step, 2 * step, seed=n) for n in range(2)]
    requests = [
        Request(
            messages=(Message("user", (ImageRef(0), "what is it? " * (1 + n % 3) + str(n))),),
            images=(images[n % 2],),
            generation=GenerationConfig(max_new_tokens=8),
            interactive=n % 4 == 3,
        )
        for n in range(8)
    ]
    with flying(make_tiny(kind, tmp_path / kind), monkeypatch, max_batch_size=3, **REUSE) as flight:
        stir(flight)
        found = check(flight, requests)
        assert len(reuse_of(flight).features.kept) == 2
        assert (sum(cached(found)) > 0) == (kind in gate.PREFIX)


@pytest.mark.parametrize("kind", ["gemma3", "paligemma", "idefics3"])
def test_families_whose_images_are_not_causal_reuse_nothing(kind, tmp_path, monkeypatch):
    with flying(make_tiny(kind, tmp_path / kind), monkeypatch, **REUSE) as flight:
        assert reuse_of(flight).prefixes is None
        assert reuse_of(flight).features is None


# Bounds -----------------------------------------------------------------------------------------------------


def test_the_cap_holds_and_the_least_recently_used_goes_first():
    kept: Kept[str] = Kept(100)
    for key in "abc":
        kept.put(key, key, 40)
    assert [kept.get(key) for key in "abc"] == [None, "b", "c"]
    assert kept.get("b") == "b"
    kept.put("d", "d", 40)
    assert [kept.get(key) for key in "bcd"] == ["b", None, "d"]
    kept.put("d", "D", 60)
    assert (kept.bytes, kept.get("d")) == (100, "D")
    kept.put("e", "e", 101)
    assert kept.get("e") is None
    assert kept.bytes == 100


def test_what_is_kept_stays_within_its_bytes(qwen):
    known = reuse_of(qwen)
    known.prefixes.cap, known.features.kept.cap = 120_000, 20_000
    for n in range(12):
        qwen.run([about(noise(112, 112, seed=n), max_new_tokens=2)])
        held = [b.size for b, _ in known.prefixes._values.values()]
        assert sum(held) == known.prefixes.bytes <= 120_000
        assert sum(s.size for s, _ in known.features.kept._values.values()) <= 20_000
    assert 0 < len(known.prefixes) < 12


def test_unloading_forgets_everything(qwen):
    import weakref

    qwen.run([about(noise(112, 112), max_new_tokens=2)])
    held = [weakref.ref(b.layers[0][0]) for b, _ in reuse_of(qwen).prefixes._values.values()]
    assert held
    qwen.backend.close()
    assert [reference() for reference in held] == [None] * len(held)
