"""Each family against the real classes: prompt rendered, prepared image accepted, two tokens generated.

The models are tiny and random (``tiny_models``); classes, processors and template shapes are the real ones.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_models import TINY, byte_tokenizer, load_tiny, make_tiny
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoModelForImageTextToText

import vlm_nb
from vlm_nb.engines.hf.processor import image_facts
from vlm_nb.errors import MissingDependency
from vlm_nb.families import Family, families, family_for
from vlm_nb.families.base import ImageLimits

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
IMAGE = Image.new("RGB", (90, 60), "red")
TASKS = ("caption", "detect", "locate")


@pytest.fixture(scope="module", params=TINY)
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Any, Any]:
    folder = make_tiny(request.param, tmp_path_factory.mktemp("tiny") / request.param)
    return request.param, folder, *load_tiny(folder)


def limits_of(family: Family, processor: Any) -> ImageLimits:
    facts = image_facts(processor)
    return family.limits_for(
        ImageLimits(
            min_pixels=facts.get("min_pixels"),
            max_pixels=facts.get("max_pixels"),
            patch=facts.get("patch"),
            size=facts.get("image_size"),
        )
    )


def rendered(family: Family, processor: Any, prompt: str) -> str:
    message = family.user_message(prompt, 1)
    plain = family.plain_prompt([message])
    if plain is not None:
        return plain
    parts = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in message.parts]
    turns = [{"role": "user", "content": parts}]
    return str(processor.apply_chat_template(turns, add_generation_prompt=True))


def encoded(family: Family, processor: Any, prompt: str, image: Image.Image) -> dict[str, torch.Tensor]:
    inputs = processor(
        images=[image],
        text=[rendered(family, processor, prompt)],
        return_tensors="pt",
        **family.processor_options(limits_of(family, processor)),
    )
    return {
        key: value for key, value in inputs.items() if isinstance(value, torch.Tensor) and key != "labels"
    }


@pytest.mark.parametrize("task", TASKS)
def test_published_prompt_and_prepared_image(loaded: tuple[str, Path, Any, Any], task: str) -> None:
    model_type, _, model, processor = loaded
    family = family_for(model_type)
    prompt = family.prompt_for(task, "red car")
    if family.chat:
        assert prompt in rendered(family, processor, prompt)
    prepared, frame = family.prepare(IMAGE, limits_of(family, processor))
    inputs = encoded(family, processor, prompt, prepared)
    assert_size_kept(inputs, processor, frame.seen, family)
    with torch.inference_mode():
        out = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    new = out.shape[1] if model.config.is_encoder_decoder else out.shape[1] - inputs["input_ids"].shape[1]
    assert 1 <= new <= 2


def assert_size_kept(inputs: dict[str, Any], processor: Any, seen: tuple[int, int], family: Family) -> None:
    """With the processor's own resize off, the tensors have the prepared image's size."""
    if "image_grid_thw" in inputs:
        _, high, wide = inputs["image_grid_thw"][0].tolist()
        patch = processor.image_processor.patch_size
        assert (wide * patch, high * patch) == seen
    elif family.processor_kwargs.get("do_resize") is False:
        assert tuple(inputs["pixel_values"].shape[-2:]) == seen[::-1]


def test_image_tokens_are_in_the_prompt(loaded: tuple[str, Path, Any, Any]) -> None:
    model_type, _, _, processor = loaded
    family = family_for(model_type)
    prepared, _ = family.prepare(IMAGE, limits_of(family, processor))
    with_image = encoded(family, processor, "x", prepared)["input_ids"].shape[1]
    assert with_image >= 4 + 1


def test_the_transformers_engine_grounds(loaded: tuple[str, Path, Any, Any]) -> None:
    """Through the package's own door: load the folder and ground (random weights answer nonsense)."""
    model_type, folder, _, _ = loaded
    model = vlm_nb.load(str(folder), device_map="cpu")
    try:
        assert model.family.name == family_for(model_type).name
        found = model.ground(IMAGE, "red car", generation_config={"max_new_tokens": 4})
        assert found.grounding in ("found", "none", "unparsed")
        assert found.image_size == IMAGE.size
    finally:
        model.unload()


@pytest.mark.parametrize(
    ("model_type", "processor", "images"),
    [
        ("mistral3", "PixtralProcessor", "PixtralImageProcessor"),
        ("molmo2", "Molmo2Processor", "Molmo2ImageProcessor"),
    ],
)
def test_a_processor_that_needs_torchvision_says_so(
    model_type: str, processor: str, images: str, tmp_path: Path
) -> None:
    if importlib.util.find_spec("torchvision") is not None:
        pytest.skip("torchvision is there")
    byte_tokenizer(("<s>",), pad_token="<s>").save_pretrained(tmp_path)
    known_types()[model_type]().save_pretrained(tmp_path)
    for name in ("processor_config.json", "preprocessor_config.json"):
        kinds = {"processor_class": processor, "image_processor_type": images}
        (tmp_path / name).write_text(json.dumps(kinds))
    with pytest.raises(MissingDependency, match="needs torchvision: pip install torchvision"):
        vlm_nb.load(str(tmp_path), device_map="cpu")


@pytest.mark.parametrize(("tiles", "tokens"), [(None, 20), (1, 4), (2, 4), (9, 40)])
def test_max_pixels_bounds_the_tiles_of_internvl(
    tiles: int | None, tokens: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A tile costs 4 tokens; several bring one of the whole image. The checkpoint allows 4 tiles."""
    folder = make_tiny("internvl", tmp_path_factory.mktemp("tiles") / "internvl")
    model = vlm_nb.load(str(folder), device_map="cpu", max_pixels=tiles and tiles * 56 * 56)
    try:
        answer = model.ask(Image.new("RGB", (300, 300), "red"), "what?", max_new_tokens=2)
        assert answer.usage.image_tokens == tokens
    finally:
        model.unload()


def known_types() -> dict[str, Any]:
    return {config.model_type: config for config in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING}


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_quantization_spares_vision_tower_and_projector(family: Family) -> None:
    """The prefixes name modules of the real classes and cover every linear layer outside the text model."""
    known = known_types()
    types = [name for name in family.model_types if name in known]
    assert bool(types) == family.in_transformers, f"{family.name}: {types}"
    for model_type in types:
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(known[model_type]())
        names = dict(model.named_modules())
        assert set(family.quantization_skips) <= set(names)
        for name, module in names.items():
            text = any(part in name for part in ("language_model", "text_model", "lm_head"))
            if isinstance(module, torch.nn.Linear) and not text:
                assert name.startswith(tuple(f"{skip}." for skip in family.quantization_skips)), name
