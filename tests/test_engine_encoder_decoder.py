"""Encoder-decoders (Florence-2) in batches: questions differ in length, and answers go on after a break."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_helpers import about, loaded, noise
from tiny_models import make_tiny

from vlm_nb.engines.base import Engine
from vlm_nb.engines.hf import generation
from vlm_nb.request import Request

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("florence2", tmp_path_factory.mktemp("florence"))


@pytest.fixture
def florence(folder: Path) -> Iterator[Engine]:
    """Three rows a batch; a head of its own, for tied random ones repeat one word."""
    with loaded(folder, max_batch_size=3) as engine:
        model: Any = engine._backend._loaded.model
        drawn = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(5))
        model.lm_head.weight = torch.nn.Parameter(drawn)
        with torch.no_grad():
            for weight in model.model.parameters():
                if weight.ndim == 2:
                    weight.mul_(6)
        yield engine


def questions(count: int) -> list[Request]:
    made = [about(noise(64, 64, seed=n), keep=True, max_new_tokens=8) for n in range(count)]
    phrase = "a red circle of some size"
    return [
        dataclasses.replace(
            request, prompt=f"<CAPTION_TO_PHRASE_GROUNDING>{phrase[: 2 + 5 * n]}", processor_kwargs={}
        )
        for n, request in enumerate(made)
    ]


def together(engine: Engine, requests: list[Request]) -> list[Any]:
    held = engine.call(lambda: time.sleep(0.3))
    tickets = [engine.submit(request) for request in requests]
    held.result(5)
    return [ticket.result(60) for ticket in tickets]


def assert_all_same(found: list[Any], expected: list[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.error, other.error) == (None, None)
        assert one.token_texts == other.token_texts
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-3)


def test_questions_of_different_lengths_share_a_batch(florence: Engine) -> None:
    requests = questions(3)
    alone = [florence.submit(request).result(60) for request in requests]
    assert len({one.usage.prompt_tokens for one in alone}) == 3
    assert len({one.token_texts for one in alone}) > 1
    assert_all_same(together(florence, requests), alone)


def test_answers_go_on_where_memory_ran_out(florence: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = questions(3)
    alone = [florence.submit(request).result(60) for request in requests]
    deliver, broken = generation._Deliver.__call__, []

    def limited(self: Any, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        done = deliver(self, input_ids, scores, **kwargs)
        if len(self._rows) > 1 and len(self._rows[0].new_ids) == 3:
            broken.append(len(self._rows))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return done

    monkeypatch.setattr(generation._Deliver, "__call__", limited)
    assert_all_same(together(florence, requests), alone)
    assert broken


def test_a_prompt_takes_no_room_from_its_answer(florence: Engine) -> None:
    [request] = questions(1)
    places = florence.info.context_length
    assert places == 512
    settings = dataclasses.replace(
        request.generation, max_new_tokens=2 * places, min_new_tokens=places, cut_repeats=False
    )
    answer = florence.submit(dataclasses.replace(request, generation=settings)).result(60)
    assert answer.error is None
    assert answer.usage.prompt_tokens > 0
    assert (answer.usage.new_tokens, answer.usage.finish_reason) == (places, "length")
