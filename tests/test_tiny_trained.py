"""Trained tiny models of real classes: what they answer, through the package's own door, against drawn truth.

Each folder of ``tests/tiny_trained`` holds a whole checkpoint (weights, tokenizer, processor, template) that
``examples/tiny_models/train.py`` made. Unlike random weights they answer something that can be wrong.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from flight import assert_all_same, flying

import vlm_nb
from vlm_nb.families import family_for
from vlm_nb.grounding import parse, write
from vlm_nb.request import Request

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT.parent / "examples" / "tiny_models"))
scoring = pytest.importorskip("scoring")
lessons = pytest.importorskip("lessons")
learner = pytest.importorskip("learner")
recipes = pytest.importorskip("recipes")

# Some processors meet numpy 2 with this; nothing to do with answers.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
FIRST, SCENES = 900_000, 36
"""Held-out scenes that the page's table does not count."""
LIMIT = 4 << 20


@dataclass(frozen=True)
class Known:
    """What a model reaches on these scenes, a little below: mean IoU, and shares of exact answers."""

    detect: float
    locate: float
    names: float
    captions: float
    classes: tuple[str, str]


KNOWN = {
    "qwen2_vl": Known(0.81, 0.81, 0.85, 0.85, ("Qwen2VLForConditionalGeneration", "Qwen2VLProcessor")),
    "qwen3_vl": Known(0.81, 0.81, 0.8, 0.8, ("Qwen3VLForConditionalGeneration", "Qwen3VLProcessor")),
    "llava": Known(0.85, 0.85, 0.75, 0.75, ("LlavaForConditionalGeneration", "LlavaProcessor")),
    "florence2": Known(0.85, 0.85, 0.85, 0.85, ("Florence2ForConditionalGeneration", "Florence2Processor")),
    "internvl": Known(0.92, 0.92, 0.9, 0.9, ("InternVLForConditionalGeneration", "InternVLProcessor")),
    "paligemma": Known(0.87, 0.87, 0.85, 0.85, ("PaliGemmaForConditionalGeneration", "PaliGemmaProcessor")),
}
STATIC = ("florence2",)
"""Those that are answered in static batches, not in flight."""


@pytest.fixture(scope="module", params=KNOWN)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str) -> Iterator[vlm_nb.VLM]:
    loaded = vlm_nb.load(str(ROOT / "tiny_trained" / name), dtype="float32", device_map="cpu")
    yield loaded
    loaded.unload()


@pytest.fixture(scope="module")
def answers(model: vlm_nb.VLM) -> list[Any]:
    return scoring.answer_all(model, range(FIRST, FIRST + SCENES))


def test_folder_is_small_and_its_classes_are_the_real_ones(name: str, model: vlm_nb.VLM) -> None:
    folder = ROOT / "tiny_trained" / name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= LIMIT
    config = json.loads((folder / "config.json").read_text())
    processor = json.loads((folder / "processor_config.json").read_text())
    assert (config["architectures"][0], processor["processor_class"]) == KNOWN[name].classes
    assert config["dtype"] == "bfloat16"
    assert model.family is family_for(config["model_type"])


def test_boxes_lie_on_what_was_drawn(name: str, answers: list[Any]) -> None:
    found = scoring.score(answers)
    assert found.detect >= KNOWN[name].detect
    assert found.locate >= KNOWN[name].locate


@pytest.mark.parametrize("kind", scoring.SIZES)
def test_boxes_come_back_to_images_of_every_shape(name: str, answers: list[Any], kind: str) -> None:
    """Square, wide and tall images go through other resizes and paddings; none of them may shift boxes."""
    assert {one.scene.image.size for one in answers if one.kind == kind} == set(scoring.SIZES[kind])
    assert scoring.score(answers).by_kind[kind] >= min(KNOWN[name].detect, KNOWN[name].locate) - 0.08


def test_boxes_carry_their_names(name: str, answers: list[Any]) -> None:
    assert scoring.score(answers).names >= KNOWN[name].names
    assert {one.detect.grounding for one in answers} == {"found"}


def test_captions_word_for_word(name: str, answers: list[Any]) -> None:
    assert scoring.score(answers).captions >= KNOWN[name].captions
    assert all(one.caption.caption.endswith("background") for one in answers)


def test_raw_answers_are_the_familys_own_format(model: vlm_nb.VLM, answers: list[Any]) -> None:
    """Writing what was read gives the text again; numbers aside, for boxes are clipped to the image."""
    family = model.family
    for one in answers:
        frames = [family.frame_for(one.scene.image.size, model.asker.limits)]
        read = parse(one.detect.raw, family.format, frames=frames, asked=True)
        written = write(read.grounded_phrases, str(family.format), frames=frames)
        assert without_numbers(written) == without_numbers(one.detect.raw)
        assert not read.notes


def without_numbers(text: str) -> str:
    return re.sub(r"[0-9.]+", "#", text.replace("<|im_end|>", "").removeprefix("<s>"))


def requests_of(model: vlm_nb.VLM, count: int) -> list[Request]:
    made = []
    for number in range(FIRST, FIRST + count):
        _, scene = scoring.held_out(number)
        phrase = scene.objects[-1].name
        for prompt, task in ((None, "caption"), (phrase, "locate"), (None, "detect")):
            made.append(model.asker.prepare(model.job(scene.image, prompt, task)).request)
    return made


def test_batched_answers_equal_single_ones(
    name: str, model: vlm_nb.VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token for token and score for score, whoever joins and leaves the batch."""
    requests = requests_of(model, 4)
    with flying(ROOT / "tiny_trained" / name, monkeypatch, max_batch_size=3) as flight:
        expected = [flight.single(request) for request in requests]
        found = flight.run(requests[:-1], late={4: requests[-1]})
        if name in STATIC:
            assert_static_same(found, expected, flight.backend._loaded.tokenizer)
        else:
            assert_all_same(found, expected)
    assert len({len(answer.tokens) for answer in expected}) > 1
    assert len({tuple(answer.tokens) for answer in expected}) >= 8


def assert_static_same(found: list[Any], expected: list[Any], tokenizer: Any) -> None:
    """Static batches keep no scores to look at: the texts of all tokens and their probabilities must do."""
    for one, other in zip(found, expected, strict=True):
        *tokens, end = other.tokens
        assert end == tokenizer.eos_token_id
        assert one.completion.token_texts == tuple(tokenizer.decode([token]) for token in tokens)
        likely = [float(other.scores[n].log_softmax(-1)[token]) for n, token in enumerate(tokens)]
        assert one.completion.token_logprobs == pytest.approx(likely, abs=1e-3)


def test_batched_confidences_equal_single_ones(name: str, model: vlm_nb.VLM, answers: list[Any]) -> None:
    loop = "static batches: an encoder-decoder model" if name in STATIC else "in flight"
    assert model.info.details["loop"] == loop
    for one in answers[:4]:
        alone = model.ground(one.scene.image, one.phrase)
        assert alone.raw == one.locate.raw
        assert alone.confidence == pytest.approx(one.locate.confidence, abs=1e-4)


def test_training_sees_what_the_engine_sees(
    name: str, model: vlm_nb.VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training batch begins with the engine's own prompts, and its forward gives the class's own scores."""
    with flying(ROOT / "tiny_trained" / name, monkeypatch) as flight, torch.inference_mode():
        encoder = flight.backend._loaded.encoder
        teacher = lessons.Teacher(recipes.RECIPES[name], flight.model, encoder._processor, seed=5)
        batch = teacher.batch(0, 2, most=1.0)
        trainee = learner.Learner(flight.model, [*teacher.places], sigma=8.0)
        seen = flight.model.get_image_features(**batch.pixels, return_dict=True)
        together = flight.model.lm_head(trainee._states(seen, batch))
        for row in range(2 * lessons.ROWS):
            alone = _alone(teacher, flight.model, batch, row)
            torch.testing.assert_close(together[row, : alone.shape[0]], alone, atol=2e-4, rtol=1e-3)
        for request in requests_of(model, 2):
            prompt = encoder.encode(request).inputs["input_ids"][0].tolist()
            question = str(request.messages[-1].text)
            assert teacher.prefix(question, request.images[0].size).ids == tuple(prompt)


def _alone(teacher: Any, inner: Any, batch: Any, row: int) -> torch.Tensor:
    """Logits of one row by the plain call: pixels, ids and mask."""
    length = int(batch.inputs["attention_mask"][row].sum())
    inputs = {key: value[row : row + 1, :length] for key, value in batch.inputs.items() if value.ndim == 2}
    if "decoder_input_ids" in inputs:
        inputs["decoder_input_ids"] = batch.inputs["decoder_input_ids"][row : row + 1]
    pixels = dict(batch.pixels)
    image = row // lessons.ROWS
    if "image_grid_thw" in pixels:
        counts = pixels["image_grid_thw"].prod(-1).tolist()
        pixels["pixel_values"] = pixels["pixel_values"].split(counts)[image]
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == teacher.image_token).int()
        pixels["image_grid_thw"] = pixels["image_grid_thw"][image : image + 1]
    else:
        pixels["pixel_values"] = pixels["pixel_values"][image : image + 1]
    return inner(**inputs, **pixels).logits[0]
