"""The openai engine and real servers: the demo model answers as it does locally, whichever runs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import fault_proxy, seeded
from PIL import Image
from test_engine_openai import QUICK, engine_at

import vlm_nb
from vlm_nb import demo
from vlm_nb.engines.base import generate
from vlm_nb.engines.openai import list_models
from vlm_nb.errors import CapabilityError, ContextTooLong, ModelNotFound
from vlm_nb.model import VLM
from vlm_nb.request import GenerationConfig, ImageRef, Message, Request
from vlm_nb.results import Prediction

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]
SCENES = 50
SEED = 770_000


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    return [demo.draw_scene(SEED + i).image for i in range(SCENES)]


@pytest.fixture(scope="module")
def both(vllm_demo: tuple[str, Path], demo_model: Path) -> Iterator[tuple[VLM, VLM]]:
    """(the demo model here, in fp32; the same behind vLLM)."""
    url, _ = vllm_demo
    here = vlm_nb.load(str(demo_model), dtype="float32", device_map="cpu", keep=True)
    there = vlm_nb.load(str(demo_model), engine="openai", base_url=url, keep=True)
    yield here, there
    there.unload()
    here.unload()


def answers(model: VLM, scenes: list[Image.Image], prompt: str | None) -> list[Prediction]:
    """``prompt=None`` asks for every object."""
    outcomes = model(source=scenes, user_prompt=prompt, show_progress=False, max_new_tokens=96)
    assert [error for _, error in outcomes] == [None] * len(scenes)
    return [result for result, _ in outcomes]


def overlap(one: Any, other: Any) -> float:
    """Intersection over union of two boxes (x_min, y_min, x_max, y_max)."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - width * height
    return width * height / area if area else 1.0


def agreement(mine: Prediction, yours: Prediction) -> list[float]:
    """The overlap of the boxes in their order; 0 for one that has no partner."""
    pairs = list(zip(mine.grounded_phrases, yours.grounded_phrases, strict=False))
    lone = max(len(mine.grounded_phrases), len(yours.grounded_phrases)) - len(pairs)
    return [overlap(a.bbox, b.bbox) for a, b in pairs] + [0.0] * lone


def test_vllm_and_the_local_engine_agree(
    both: tuple[VLM, VLM], scenes: list[Image.Image], record_property: Any
) -> None:
    here, there = both
    assert there.family.name == here.family.name == "qwen2_5_vl"
    for name, prompt in (("captions", "Describe this image."), ("boxes", None)):
        mine, yours = answers(here, scenes, prompt), answers(there, scenes, prompt)
        equal = sum(a.raw == b.raw for a, b in zip(mine, yours, strict=True))
        overlaps = [iou for a, b in zip(mine, yours, strict=True) for iou in agreement(a, b)]
        mean = sum(overlaps) / len(overlaps) if overlaps else None
        record_property(name, f"{equal} of {SCENES} equal, mean IoU {mean}, {len(overlaps)} boxes")
        print(f"{name}: {equal} of {SCENES} equal, mean IoU {mean} of {len(overlaps)} boxes")
        assert equal >= 48
        assert mean is None or mean >= 0.95


def test_vllm_follows_a_schema(vllm_demo: tuple[str, Path], demo_model: Path) -> None:
    kinds = {"enum": ["circle", "square", "star"]}
    schema = {"type": "object", "properties": {"kind": kinds, "count": {"enum": [1, 2, 3]}}}
    with engine_at(vllm_demo[0], str(demo_model)) as engine:
        done = engine.submit(question("What is it?", schema={"json": schema}, max_new_tokens=60)).result(120)
        words = ["a (big) star", "a small star"]
        chosen = engine.submit(question("What is it?", schema={"choices": words})).result(120)
        number = engine.submit(question("How many?", schema={"regex": "[0-9]{3}"})).result(120)
    assert (done.error, chosen.error, number.error) == (None, None, None)
    assert json.loads(done.text)["kind"] in kinds["enum"]
    assert chosen.text in words
    assert len(number.text) == 3
    assert number.text.isdigit()


def question(text: str, *, schema: Any = None, number: int = 0, **generation: Any) -> Request:
    return Request(
        messages=(Message("user", (ImageRef(0), text)),),
        images=(demo.draw_scene(number).image.resize((140, 140)),),
        generation=GenerationConfig(**{"max_new_tokens": 24, **generation}),
        schema=schema,
        interactive=False,
    )


def test_vllm_reads_shared_files_where_allowed(vllm_demo: tuple[str, Path], demo_model: Path) -> None:
    url, folder = vllm_demo
    name = str(demo_model)
    shared = {"media_folder": str(folder / "images")}
    with engine_at(url, name) as sent, engine_at(url, name, args=shared, allow_local_paths=True) as read:
        asked = question("Describe this image.")
        assert sent.submit(asked).result(120).text == read.submit(asked).result(120).text
    assert list((folder / "images").iterdir())


def test_vllm_tells_probabilities_and_refuses_clearly(vllm_demo: tuple[str, Path], demo_model: Path) -> None:
    url, name = vllm_demo[0], str(demo_model)
    assert list_models(url) == [name]
    with engine_at(url, name, args={"logprobs": True}) as engine:
        done = engine.submit(question("Describe this image.")).result(120)
        assert done.token_logprobs is not None
        assert len(done.token_logprobs) == done.usage.new_tokens
        assert all(value <= 0 for value in done.token_logprobs)
        assert isinstance(engine.submit(question("x" * 4000)).result(120).error, ContextTooLong)
    with pytest.raises(ModelNotFound, match="it offers"), engine_at(url, "another"):
        pass


def test_vllm_takes_its_own_settings(vllm_demo: tuple[str, Path], demo_model: Path) -> None:
    drawn = {"temperature": 1.5, "top_k": 20, "repetition_penalty": 1.1, "min_new_tokens": 12, "seed": 5}
    with engine_at(vllm_demo[0], str(demo_model)) as engine:
        first, again = (engine.submit(question("How many?", **drawn)).result(120) for _ in range(2))
    assert (first.error, first.text) == (None, again.text)
    assert (first.usage.new_tokens or 0) >= 12


def test_vllm_through_faults(vllm_demo: tuple[str, Path], demo_model: Path) -> None:
    with (
        fault_proxy(vllm_demo[0], seeded(0.3, seed=2), retry_after=0.05) as proxy,
        engine_at(proxy.url, str(demo_model), error_threshold=0.9, args={**QUICK, "timeout": 10}) as engine,
    ):
        done = list(generate(engine, (question("How many?", number=i % 7) for i in range(100))))
        proxy.over.set()
    assert sorted(index for index, _ in done) == list(range(100))
    texts: dict[int, set[str]] = {}
    for index, completion in done:
        if completion.error is None:
            texts.setdefault(index % 7, set()).add(completion.text)
    assert {len(found) for found in texts.values()} == {1}


def test_transformers_serve_answers_as_the_local_engine(
    transformers_serve: str, models: dict[str, Path], fresh_registry: None
) -> None:
    folder = str(models["llava"])
    picture = demo.draw_scene(3).image.resize((56, 56))
    server = {"server": "transformers"}
    there = vlm_nb.load(folder, engine="openai", base_url=transformers_serve, engine_args=server)
    here = vlm_nb.load(folder, dtype="float32", device_map="cpu", keep=True)
    assert there.family.name == here.family.name
    mine, yours = (model.ask(picture, "what is it?", max_new_tokens=8) for model in (here, there))
    assert mine.raw == yours.raw
    with pytest.raises(CapabilityError, match="schema"):
        there.run(
            [there.job(picture, "what?", schema={"type": "object", "properties": {"a": {"type": "integer"}}})]
        )[0].unwrap()
