"""Every model type that can be built small answers in batches as alone; so does the trained demo model."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from engine_helpers import about, loaded, noise
from PIL import Image
from tiny_models import TINY, make_tiny

from vlm_nb import demo
from vlm_nb.engines.base import Engine, ModelInfo, generate
from vlm_nb.request import Completion, Request

PROMPTS = {
    "florence2": "What does the image describe?",
    "paligemma": "<image>describe",
    "kosmos-2": "<image>describe",
}
COUNT = 5
trained = pytest.mark.skipif(
    not (demo.weights_path() / "model.safetensors").is_file(), reason="the demo model is not trained yet"
)


def question(info: ModelInfo, number: int) -> Request:
    """A request with one image that this model takes as it is; each is longer than the one before."""
    step = info.patch or 28
    size = info.image_size or (step * (1 + number % 3), step * 2)
    made = about(noise(*size, seed=number), question="why " * (number % 4 + 1), max_new_tokens=3 + number)
    changes: dict[str, Any] = {} if info.patch else {"processor_kwargs": {}}
    if info.model_type in PROMPTS:
        changes["prompt"] = PROMPTS[info.model_type]
    return dataclasses.replace(made, **changes)


def assert_batches_are_singles(engine: Engine, requests: list[Request]) -> list[Completion]:
    single = [engine.submit(request).result(120) for request in requests]
    together = dict(generate(engine, requests))
    for index, alone in enumerate(single):
        other = together[index]
        assert (alone.error, other.error) == (None, None)
        assert other.text == alone.text
        assert other.token_texts == alone.token_texts
        assert other.token_logprobs == pytest.approx(alone.token_logprobs, abs=1e-3)
    return single


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("model_type", TINY)
def test_batches_answer_as_single_requests_do(model_type, tmp_path):
    with loaded(make_tiny(model_type, tmp_path)) as engine:
        info = engine.info
        answers = assert_batches_are_singles(engine, [question(info, n) for n in range(COUNT)])
        assert info.details["estimated bytes"] == pytest.approx(info.memory, rel=0.15)
        if info.patch:
            assert answers[0].seen_sizes == ((info.patch, 2 * info.patch),)


def scenes(count: int) -> list[Image.Image]:
    """Scenes as the demo model knows them, on canvases of its own sizes."""
    return [demo.draw_scene(700_000 + number, size=None).image for number in range(count)]


@trained
def test_the_demo_model_answers_in_batches_as_alone():
    with loaded(demo.weights_path()) as engine:
        asked = ("Describe this image.", "How many objects are there?", "What is on the left?")
        requests = [
            about(image, question=asked[n % 3], max_new_tokens=40) for n, image in enumerate(scenes(12))
        ]
        answers = assert_batches_are_singles(engine, requests)
    assert {answer.usage.finish_reason for answer in answers} == {"stop"}
    assert not any("<|" in answer.text for answer in answers)


@trained
@pytest.mark.parametrize(("way", "least"), [("8bit", 0.9), ("4bit", 0.6)])
def test_the_quantised_demo_model_agrees_with_16_bit(way, least):
    """The share of equal answers; the figure is printed with ``-s``."""
    pytest.importorskip("bitsandbytes")
    requests = [
        about(image, question="How many objects are there?", max_new_tokens=30) for image in scenes(20)
    ]
    texts = {}
    for quantised in (None, way):
        with loaded(demo.weights_path(), dtype="bfloat16", quantization=quantised) as engine:
            answers = dict(generate(engine, requests))
            texts[quantised] = [answers[n].text for n in range(len(requests))]
    agreement = sum(a == b for a, b in zip(texts[None], texts[way], strict=True)) / len(requests)
    print(f"{way}: {agreement:.2f} of the answers are the same")
    assert agreement >= least
