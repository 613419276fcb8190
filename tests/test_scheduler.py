"""In-flight batching: every answer is the one that the model gives alone, whoever joins and leaves.

Scores are compared beside tokens, and planted mistakes (``MISTAKES``) must be seen by the comparison.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_helpers import about, noise
from engine_models import make_qwen
from flight import Answer, Flight, assert_a_cancelled_row_leaves, assert_all_same, flying, stir
from tiny_models import make_tiny
from torch.nn.functional import pad

from vlm_nb import demo
from vlm_nb.engines.hf import gate, scheduler, step
from vlm_nb.engines.hf.leftpad import Block
from vlm_nb.request import GenerationConfig, ImageRef, Message, Request

# Some processors meet numpy 2 with this; nothing to do with batches.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_qwen(tmp_path_factory.mktemp("qwen"), hidden=64)


@pytest.fixture
def qwen(qwen_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flight]:
    """Rows of a model as small as this attend in several spans only if a call is said to cost little."""
    monkeypatch.setattr(step, "CALL", 64)
    with flying(qwen_folder, monkeypatch, max_batch_size=3) as flight:
        stir(flight)
        yield flight


def mixed(count: int = 8) -> list[Request]:
    """No image to two, of several sizes; short and long questions; 1 to 26 new tokens."""
    made = []
    for n in range(count):
        images = [
            noise(56 + 28 * (n % 4), 28 * (1 + n % 3), seed=9 * n + k) for k in range((1, 2, 0, 1)[n % 4])
        ]
        made.append(about(*images, question="why? " * (1 + n % 5), max_new_tokens=1 + 5 * ((n + 3) % 6)))
    return made


# Equal to single answers ------------------------------------------------------------------------------------


def test_rows_that_join_and_leave_answer_as_single_requests_do(qwen, monkeypatch):
    requests, spans, plain = mixed(10), set(), Block.spans
    monkeypatch.setattr(Block, "spans", lambda self, model: spans.add(plain(self, model)) or self.own)
    expected = [qwen.single(request) for request in requests]
    assert_all_same(qwen.run(requests), expected)
    assert len({tuple(answer.tokens) for answer in expected}) >= len(requests) - 2
    assert max(qwen.widths) == 4, "three slots, and one for an interactive row"
    assert qwen.loop.block is None
    assert {1, 2, 3} <= {len(one) for one in spans}


def test_the_longest_row_joins_late_and_the_longest_row_leaves_first(qwen):
    short = [about(noise(56, 56, seed=n), max_new_tokens=24) for n in range(2)]
    long = about(noise(112, 112, seed=7), question="long " * 30, max_new_tokens=6)
    widths: list[int] = []
    join, keep = Block.join, Block.keep

    def watched(self: Block, *args: Any) -> None:
        (join if isinstance(args[0], Block) else keep)(self, *args)
        widths.append(self.width)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Block, "join", watched)
        patch.setattr(Block, "keep", watched)
        found = qwen.run(short, late={5: long})
    assert_all_same(found, [qwen.single(request) for request in [*short, long]])
    assert max(widths) > 3 * widths[-1], "the block shrinks when its longest row has left"


def test_a_row_may_end_at_its_first_token(qwen):
    requests = [about(noise(56, 56, seed=n), max_new_tokens=1 if n % 2 else 9) for n in range(6)]
    found = qwen.run(requests)
    assert_all_same(found, [qwen.single(request) for request in requests])
    assert [len(answer.tokens) for answer in found] == [9, 1, 9, 1, 9, 1]


def test_an_end_token_in_mid_batch_ends_its_row_only(qwen):
    requests = [about(noise(56, 56, seed=n), max_new_tokens=20) for n in range(4)]
    free = [qwen.single(request).tokens for request in requests]
    end = next(token for token in free[1][3:] if token not in free[1][:3])
    qwen.backend._loaded.eos |= {end}
    cut = [tokens[: tokens.index(end) + 1] if end in tokens else tokens for tokens in free]
    found = qwen.run(requests)
    assert [answer.tokens for answer in found] == cut
    assert found[1].completion.usage.finish_reason == "stop"
    assert found[1].completion.usage.new_tokens == len(cut[1]) - 1


def test_the_cache_grows_over_many_tokens(qwen):
    requests = [about(noise(56, 56, seed=n), max_new_tokens=200 - 60 * n) for n in range(3)]
    assert_all_same(qwen.run(requests), [qwen.single(request) for request in requests])


def test_the_demo_model_answers_in_flight_as_alone(monkeypatch):
    with flying(demo.weights_path(), monkeypatch, max_batch_size=4) as flight:
        sizes = flight.backend._loaded.info
        side = int((sizes.max_pixels or 140 * 140) ** 0.5) // 28 * 28
        questions = ("Describe this image.", "How many objects are there?", "Is there a red circle?")
        requests = [about(scene(n, side), question=questions[n % 3], max_new_tokens=40) for n in range(9)]
        assert_all_same(flight.run(requests), [flight.single(request) for request in requests])


def scene(seed: int, side: int) -> Any:
    return demo.draw_scene(seed).image.convert("RGB").resize((side, side))


# Families ---------------------------------------------------------------------------------------------------

SIDES = {"qwen3_vl": 32, "qwen3_vl_moe": 32}


def of_family(kind: str, n: int, **generation: Any) -> Request:
    """A request whose image the family's processor takes as it is."""
    step = SIDES.get(kind, 28)
    many = "qwen" in kind or kind == "glm4v"
    image = noise(step * (2 + n % 3), step * (2 + n % 2), seed=n) if many else noise(56, 56, seed=n)
    settings = GenerationConfig(**{"max_new_tokens": 4 + 3 * (n % 4), **generation})
    question = "what is it? " * (1 + n % 3)
    prompt = f"<image>{question}" if kind == "paligemma" else None
    message = Message("user", (ImageRef(0), question))
    return Request(messages=(message,), images=(image,), prompt=prompt, generation=settings)


@pytest.mark.parametrize("kind", sorted(gate.IN_FLIGHT))
def test_families_answer_in_flight_as_alone(kind, tmp_path, monkeypatch):
    with flying(make_tiny(kind, tmp_path / kind), monkeypatch, max_batch_size=3) as flight:
        stir(flight)
        requests = [of_family(kind, n) for n in range(7)]
        expected = [flight.single(request) for request in requests]
        assert_all_same(flight.run(requests[:5], late={2: requests[5], 4: requests[6]}), expected)
        assert len({tuple(answer.tokens) for answer in expected}) > 3, "the model says one thing only"


@pytest.mark.parametrize("window", [8, 24, 64])
def test_sliding_windows_are_as_alone_below_and_above_the_window(window, tmp_path, monkeypatch):
    folder = make_tiny("gemma3", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["sliding_window"] = window
    config["text_config"]["layer_types"] = ["sliding_attention", "full_attention"]
    (folder / "config.json").write_text(json.dumps(config))
    with flying(folder, monkeypatch, max_batch_size=3) as flight:
        stir(flight)
        requests = [of_family("gemma3", n, max_new_tokens=5 + 9 * (n % 4)) for n in range(7)]
        assert any(layer.is_sliding for layer in fresh_cache(flight).layers)
        assert_all_same(flight.run(requests), [flight.single(request) for request in requests])


def fresh_cache(flight: Flight) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=flight.model.config.get_text_config(decoder=True))


# Mistakes must be seen --------------------------------------------------------------------------------------


def shifted(by: int) -> Callable[[Block], None]:
    def mistake(block: Block) -> None:
        block.positions = block.positions + by

    return mistake


def as_text(block: Block) -> None:
    """Positions as if images were text."""
    block.positions = block.mask.sum(1)[:, None].expand_as(block.positions).clone()


def stale_column(block: Block) -> None:
    """A column that belongs to nothing."""
    for layer in block.cache.layers:
        layer.keys = torch.cat([layer.keys, layer.keys[:, :, -1:]], dim=2)
        layer.values = torch.cat([layer.values, layer.values[:, :, -1:]], dim=2)
    block.mask = pad(block.mask, (0, 1), value=1)


def swapped_rows(block: Block) -> None:
    for layer in block.cache.layers:
        layer.keys, layer.values = layer.keys.flip(0), layer.values.flip(0)


AFTER_PREFILL = {
    "position + 1": shifted(1),
    "position - 1": shifted(-1),
    "text positions": as_text,
    "stale column": stale_column,
    "swapped rows": swapped_rows,
}


def pairs() -> list[Request]:
    """Rows of one kind that are prefilled together, of unlike lengths."""
    return [about(noise(84, 56, seed=n), question="why? " * (3 + n % 2), max_new_tokens=8) for n in range(6)]


def answers(flight: Flight) -> tuple[list[Answer], list[Answer]]:
    requests = pairs()
    return flight.run(requests), [flight.single(request) for request in requests]


def seen(flight: Flight) -> bool:
    found, expected = answers(flight)
    return not all(one.same(other) for one, other in zip(found, expected, strict=True))


def test_nothing_is_seen_without_a_mistake(qwen):
    assert not seen(qwen)
    assert max(qwen.widths) == 4, "three slots, and one for an interactive row"


@pytest.mark.parametrize("name", AFTER_PREFILL)
def test_a_mistake_after_prefill_is_seen(qwen, monkeypatch, name):
    plain = scheduler.prefill

    def mistaken(*args: Any) -> Any:
        block, scores = plain(*args)
        AFTER_PREFILL[name](block)
        return block, scores

    monkeypatch.setattr(scheduler, "prefill", mistaken)
    assert seen(qwen)


def test_visible_padding_is_seen(qwen, monkeypatch):
    plain = Block.decode

    def mistaken(self: Block, model: Any, tokens: torch.Tensor) -> torch.Tensor:
        def visible(**call: Any) -> Any:
            return model(**{**call, "attention_mask": torch.ones_like(call["attention_mask"])})

        return plain(self, visible, tokens)

    monkeypatch.setattr(Block, "decode", mistaken)
    assert seen(qwen)


def test_a_forgotten_trim_of_the_wrong_rows_is_seen(qwen, monkeypatch):
    plain = Block.keep
    monkeypatch.setattr(Block, "keep", lambda self, rows: plain(self, [n - 1 if n else 0 for n in rows]))
    requests = [about(noise(84, 56, seed=n), max_new_tokens=3 + 4 * n) for n in range(3)]
    found, expected = qwen.run(requests), [qwen.single(request) for request in requests]
    assert not all(one.same(other) for one, other in zip(found, expected, strict=True))


# Rows have their own settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.7},
        {"min_new_tokens": 5},
        {"temperature": 1.2, "top_p": 0.9, "seed": 3},
        {"temperature": 0.8, "top_k": 20, "seed": 4},
        {"num_beams": 3},
        {"stop": ("e", "a")},
    ],
)
def test_settings_of_a_row_give_what_they_give_alone(qwen, settings):
    special = about(noise(56, 84, seed=50), max_new_tokens=16, **settings)
    (alone,) = qwen.run([special])
    crowd = qwen.run([*mixed(3), special, *mixed(2)])[3]
    assert crowd.completion.text == alone.completion.text
    assert crowd.completion.usage.finish_reason == alone.completion.usage.finish_reason
    assert crowd.tokens == alone.tokens


def test_a_grammar_gives_what_it_gives_alone(qwen):
    import dataclasses

    schema = {"json": {"type": "object", "properties": {"n": {"enum": [1, 2, 3]}}, "required": ["n"]}}
    bound = [
        dataclasses.replace(about(noise(56, 84, seed=60 + n), max_new_tokens=24), schema=schema)
        for n in range(2)
    ]
    alone = [qwen.run([request])[0] for request in bound]
    crowd = qwen.run([mixed(1)[0], bound[0], *mixed(2), bound[1]])
    for one, other in zip(alone, (crowd[1], crowd[4]), strict=True):
        assert one.completion.text == other.completion.text
        assert json.loads(one.completion.text)["n"] in (1, 2, 3)


# Order ------------------------------------------------------------------------------------------------------


def test_an_interactive_row_starts_although_all_slots_are_taken(qwen):
    import dataclasses

    batch = [
        dataclasses.replace(about(noise(56, 56, seed=n), max_new_tokens=30), interactive=False)
        for n in range(5)
    ]
    tickets = qwen.admit(*batch)
    for _ in range(4):
        qwen.step()
    (urgent,) = qwen.admit(about(noise(56, 56, seed=70), max_new_tokens=3))
    for _ in range(4):
        qwen.step()
    assert urgent.done
    assert not any(ticket.done for ticket in tickets)


def test_a_cancelled_row_leaves_and_the_others_go_on(qwen):
    requests = [about(noise(56, 56, seed=n), max_new_tokens=20) for n in range(4)]
    assert_a_cancelled_row_leaves(qwen, requests, after=5)
