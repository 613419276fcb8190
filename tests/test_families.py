"""The families as facts: registry, prompts, geometry, and ``parse_grounding``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vlm_nb
from vlm_nb.errors import OptionError
from vlm_nb.families import DEFAULT, Family, families, family_for, known_family
from vlm_nb.families.base import ImageLimits
from vlm_nb.families.preparation import MAX_RATIO, fit, shrink_to, smart_resize
from vlm_nb.grounding import FORMATS
from vlm_nb.request import ImageRef, Message
from vlm_nb.results import Frame

SIZES = {
    "square": (640, 640),
    "wide": (1600, 400),
    "tall": (300, 1200),
    "tiny": (3, 2),
    "one pixel": (1, 1),
    "12 megapixels": (4000, 3000),
    "100 megapixels": (12_000, 9_000),
    "ratio 100": (5000, 50),
    "ratio 200": (50, 10_000),
    "ratio 1000": (10_000, 10),
}
ALL = [*families(), DEFAULT]
RESIZERS = [f for f in ALL if f.limits.patch]


def by_name(family: Family) -> str:
    return family.name


# Registry -----------------------------------------------------------------------------------------------


def test_issue_names_every_model_type() -> None:
    wanted = (
        "qwen_vl qwen2_vl qwen2_5_vl cosmos_reason1 qwen3_vl qwen3_vl_moe qwen3_5 internvl nvila llava "
        "llava_next paligemma paligemma2 florence2 kosmos-2 deepseek_vl_v2 minicpmv glm4v glm46v molmo "
        "molmo2 kimi_vl gemini moondream"
    )
    for model_type in wanted.split():
        assert known_family(model_type).format in FORMATS


def test_names_are_unique() -> None:
    names = [family.name for family in families()]
    assert len(names) == len(set(names))
    assert DEFAULT.name not in names


@pytest.mark.parametrize(
    ("model_type", "name", "family"),
    [
        ("qwen2_5_vl", None, "qwen2_5_vl"),
        ("qwen2_5_vl", "Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl"),
        ("qwen2_5_vl", "nvidia/Cosmos-Reason1-7B", "cosmos_reason1"),
        ("qwen2_5_vl", "somebody/finetuned-gemini-lookalike", "qwen2_5_vl"),
        ("qwen3_vl_moe", None, "qwen3_vl"),
        ("paligemma", None, "paligemma"),
        (None, "Qwen/Qwen2.5-VL-72B-Instruct", "qwen2_5_vl"),
        (None, "Qwen/Qwen2-VL-7B-Instruct", "qwen2_vl"),
        (None, "Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl"),
        (None, "Qwen/Qwen-VL-Chat", "qwen_vl"),
        (None, "OpenGVLab/InternVL3_5-8B-HF", "internvl"),
        (None, "models/gemini-3.5-flash", "gemini"),
        (None, "allenai/Molmo-7B-D-0924", "molmo"),
        (None, "allenai/Molmo2-8B", "molmo2"),
        (None, "deepseek-ai/deepseek-vl2-tiny", "deepseek_vl_v2"),
        (None, "openbmb/MiniCPM-V-4_5", "minicpmv"),
        (None, "zai-org/GLM-4.5V", "glm4v"),
        (None, "moonshotai/Kimi-VL-A3B-Instruct", "kimi_vl"),
        (None, "llava-hf/llava-v1.6-mistral-7b-hf", "llava_next"),
        (None, "llava-hf/llava-1.5-7b-hf", "llava"),
        (None, "Efficient-Large-Model/NVILA-8B", "nvila"),
        (None, "01-ai/Yi-VL-6B", "yi_vl"),
        (None, "vikhyatk/moondream2", "moondream"),
        ("unheard_of", "someone/something", "default"),
        (None, None, "default"),
    ],
)
def test_family_of_a_model(model_type: str | None, name: str | None, family: str) -> None:
    assert family_for(model_type, name).name == family


def test_unknown_model_type_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="qwen2_5_vl"):
        known_family("qwen2.5_vl")


@pytest.mark.parametrize("family", ALL, ids=by_name)
def test_facts_are_complete(family: Family) -> None:
    assert family.format is None or family.format in FORMATS
    assert "{phrase}" in family.locate_prompt
    assert "red car" in family.prompt_for("locate", "red car")
    assert family.prompt_for("caption") == family.caption_prompt
    assert family.prompt_for("detect") == family.detect_prompt
    assert family.chat == (family.plain_prompt([family.user_message("x", 1)]) is None)
    assert all(not skip.endswith((".", "*")) for skip in family.quantization_skips)


def test_prompts_that_the_demo_model_is_trained_on() -> None:
    family = family_for("qwen2_5_vl")
    assert family.prompt_for("caption") == "Describe this image."
    assert family.prompt_for("detect") == (
        "Locate every object in the image and output the bbox coordinates in JSON format."
    )
    assert family.prompt_for("locate", "red car") == (
        "Locate every red car in the image and output the bbox coordinates in JSON format."
    )


def test_braces_in_a_phrase_stay() -> None:
    assert "{0} {phrase}" in family_for("qwen2_5_vl").prompt_for("locate", "{0} {phrase}")


def test_plain_prompts() -> None:
    turn = Message("user", (ImageRef(0), "detect cat"))
    assert family_for("paligemma").plain_prompt([turn]) == "<image>detect cat"
    assert family_for("kosmos-2").plain_prompt([turn]) == "detect cat"
    assert family_for("paligemma").plain_prompt([]) is None


# Geometry -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("family", ALL, ids=by_name)
def test_frames(family: Family, size: tuple[int, int]) -> None:
    frame = family.frame_for(size)
    x0, y0, x1, y1 = frame.content or (0, 0, *frame.seen)
    assert frame.original == size
    assert 0 <= x0 < x1 <= frame.seen[0]
    assert 0 <= y0 < y1 <= frame.seen[1]
    area = family.limits.max_pixels
    if area and family.limits.patch is None:
        assert frame.seen[0] * frame.seen[1] <= area
    box = (0.25, 0.125, 0.75, 0.5)
    assert frame.to_original(frame.to_seen(box)) == pytest.approx(box, abs=1e-9)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("most", [None, 140 * 140, 28 * 28 * 2], ids=["default", "140x140", "two patches"])
@pytest.mark.parametrize("family", RESIZERS, ids=by_name)
def test_smart_resize_bounds(family: Family, most: int | None, size: tuple[int, int]) -> None:
    limits = ImageLimits(max_pixels=most, min_pixels=most)
    patch = family.limits.patch or 1
    frame = family.frame_for(size, limits)
    wide, high = frame.seen
    assert wide % patch == high % patch == 0
    merged = family.merged_limits(limits)
    # Qwen's rule rounds a small image's sides up, so each may be a patch longer than the area allows.
    assert (wide - patch) * (high - patch) <= (merged.max_pixels or 0)
    assert max(wide, high) / min(wide, high) <= 1.5 * MAX_RATIO + 1


@pytest.mark.parametrize("size", [(300, 200), (90, 400), (50, 1500), (3000, 30), (30, 30)], ids=str)
@pytest.mark.parametrize("family", ALL, ids=by_name)
def test_a_drawn_box_is_where_the_frame_says(family: Family, size: tuple[int, int]) -> None:
    """A white rectangle in a black image is found in the prepared image where ``to_seen`` puts it."""
    wide, high = size
    box = (round(wide * 0.2), round(high * 0.4), round(wide * 0.6) or 1, max(round(high * 0.8), 1))
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), box)
    prepared, frame = family.prepare(image)
    assert prepared.size == frame.seen
    assert prepared.mode == "RGB"
    bright = np.asarray(prepared.convert("L")) > 180
    ys, xs = np.nonzero(bright)
    expected = frame.to_seen((box[0] / wide, box[1] / high, box[2] / wide, box[3] / high))
    slack = 1.5 + 0.5 * max(frame.seen[0] / wide, frame.seen[1] / high)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == pytest.approx(expected, abs=slack)


def test_fit_leaves_a_conforming_image_alone() -> None:
    image = Image.new("RGB", (56, 56))
    assert fit(image, Frame((56, 56), (56, 56))) is image


def test_shrink_to() -> None:
    small, frame = shrink_to(Image.new("RGB", (1000, 500)), 50_000)
    assert small.size == frame.seen == (316, 158)
    same, frame = shrink_to(Image.new("RGB", (10, 10)), None)
    assert (same.size, frame.seen) == ((10, 10), (10, 10))


def test_smart_resize_is_qwens_rule() -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as theirs

    rng = np.random.default_rng(0)
    for _ in range(3_000):
        wide, high = (int(v) for v in rng.integers(1, 6000, 2))
        least, most = int(rng.choice([784, 3136, 19_600])), int(rng.choice([19_600, 1_003_520, 12_845_056]))
        if max(wide, high) / min(wide, high) <= 200:
            expected = theirs(high, wide, 28, least, most)[::-1]
            assert smart_resize((wide, high), 28, least, most) == expected


@pytest.mark.parametrize("size", [(640, 480), (31, 47), (1200, 900), (100, 1000), (140, 252)], ids=str)
def test_prepared_images_give_the_processors_own_tensors(size: tuple[int, int]) -> None:
    """``do_resize=False`` on the prepared image is the same, bit for bit, as the processor's own resize."""
    from transformers import Glm4vImageProcessorPil, Qwen2VLImageProcessorPil

    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    cases: list[tuple[str, Any]] = [
        ("qwen2_5_vl", Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=401_408)),
        ("qwen3_vl", Qwen2VLImageProcessorPil(min_pixels=4096, max_pixels=262_144, patch_size=16)),
        ("glm4v", Glm4vImageProcessorPil(size={"shortest_edge": 12_544, "longest_edge": 802_816})),
    ]
    for name, processor in cases:
        family = family_for(name)
        edges = processor.size
        found = ImageLimits(
            min_pixels=edges["shortest_edge"],
            max_pixels=edges["longest_edge"],
            patch=2 * processor.patch_size,
        )
        prepared, _ = family.prepare(image, family.limits_for(found))
        ours = processor(images=[prepared], return_tensors="np", **family.processor_kwargs)
        theirs = processor(images=[image], return_tensors="np")
        assert (ours["image_grid_thw"] == theirs["image_grid_thw"]).all()
        assert (ours["pixel_values"] == theirs["pixel_values"]).all()


def test_llava_pads_as_its_authors_did() -> None:
    """Against the processor's own padding (off by default), which pads before it resizes."""
    from transformers import LlavaImageProcessorPil

    ramp = np.linspace(0, 255, 200, dtype=np.uint8)
    image = Image.fromarray(np.stack([np.tile(ramp, (100, 1))] * 3, axis=-1))
    processor = LlavaImageProcessorPil(size={"shortest_edge": 112}, crop_size={"height": 112, "width": 112})
    family = family_for("llava")
    prepared, frame = family.prepare(image, ImageLimits(size=(112, 112)))
    ours = processor(images=[prepared], return_tensors="np", **family.processor_kwargs)["pixel_values"]
    theirs = processor(images=[image], return_tensors="np", do_pad=True)["pixel_values"]
    assert frame.content == (0.0, 28.0, 112.0, 84.0)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).mean() < 0.03


def test_limits_of_a_checkpoint() -> None:
    family = family_for("qwen2_5_vl")
    published = ImageLimits(min_pixels=3136, max_pixels=12_845_056, patch=28)
    assert family.limits_for(published).max_pixels == 1280 * 28 * 28
    demo = ImageLimits(min_pixels=19_600, max_pixels=19_600, patch=28)
    assert family.limits_for(demo) == ImageLimits(min_pixels=19_600, max_pixels=19_600, patch=28)
    assert family.limits_for(published, max_pixels=4_000_000).max_pixels == 4_000_000
    assert family_for("llava").limits_for(ImageLimits(size=(56, 56))).size == (56, 56)
    assert family_for("llava_next").limits_for(ImageLimits(size=(56, 56))).size is None
    assert (
        family_for("glm4v").limits_for(ImageLimits(max_pixels=20_000, min_pixels=6272)).max_pixels == 10_000
    )


def test_a_phone_photo_costs_about_1300_tokens() -> None:
    wide, high = family_for("qwen2_5_vl").frame_for((4000, 3000)).seen
    assert 1_100 < wide * high / 28**2 <= 1_280


# parse_grounding ----------------------------------------------------------------------------------------

JSON = '[{"bbox_2d": [70, 42, 140, 84], "label": "cat"}]'


def test_parse_grounding_in_the_space_of_the_model() -> None:
    found = vlm_nb.parse_grounding(JSON, "qwen2_5_vl", image_size=(400, 300), input_size=(140, 84))
    assert found.grounding == "found"
    assert found.grounded_phrases[0].bbox == (0.5, 0.5, 1.0, 1.0)
    found = vlm_nb.parse_grounding(JSON, "qwen3_vl", image_size=(400, 300))
    assert found.grounded_phrases[0].bbox == pytest.approx((0.07, 0.042, 0.14, 0.084))


def test_parse_grounding_without_an_input_size_uses_the_familys_own() -> None:
    frame = family_for("qwen2_5_vl").frame_for((4000, 3000))
    found = vlm_nb.parse_grounding(JSON, "qwen2_5_vl", image_size=(4000, 3000))
    assert found.grounded_phrases[0].bbox == frame.to_original((70, 42, 140, 84))


@pytest.mark.parametrize("input_size", [None, (336, 336), (448, 448)], ids=str)
def test_parse_grounding_knows_that_llava_was_padded(input_size: tuple[int, int] | None) -> None:
    found = vlm_nb.parse_grounding(
        "[0.0, 0.25, 1.0, 0.75]", "llava", image_size=(800, 400), input_size=input_size
    )
    assert found.grounded_phrases[0].bbox == pytest.approx((0.0, 0.0, 1.0, 1.0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": None},
        {"text": b"[]"},
        {"model_type": "qwen9"},
        {"image_size": (0, 10)},
        {"image_size": 7},
        {"image_size": ("a", "b")},
        {"image_size": (1, 2, 3)},
        {"image_size": (float("inf"), 2)},
        {"input_size": (-1, 10)},
    ],
    ids=str,
)
def test_parse_grounding_refuses_wrong_arguments(wrong: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"text": JSON, "model_type": "qwen2_5_vl", "image_size": (10, 10)} | wrong
    with pytest.raises(OptionError):
        vlm_nb.parse_grounding(**arguments)


def test_the_default_family_guesses_and_says_so() -> None:
    frame = DEFAULT.frame_for((1000, 1000))
    for text, expected in (
        ("<loc0100><loc0200><loc0300><loc0400> cat", "paligemma"),
        ("<ref>cat</ref><box>[[100, 200, 300, 400]]</box>", "internvl"),
        ("<ref>cat</ref><box>(100,200),(300,400)</box>", "qwen_vl"),
        ("<box>100 200 300 400</box>", "minicpmv"),
        ('[{"box_2d": [100, 200, 300, 400], "label": "cat"}]', "gemini"),
        ('[{"bbox_2d": [100, 200, 300, 400], "label": "cat"}]', "0..1000"),
        ("[0.1, 0.2, 0.3, 0.4]", "fractions"),
        ('<points x1="10" y1="20" x2="3" y2="4">cat</points>', "molmo"),
        ('<points coords="1 1 100 200">cat</points>', "molmo2"),
        ("cat<loc_1><loc_2><loc_3><loc_4>", "florence2"),
        ("<|ref|>cat<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>", "deepseek_vl2"),
        ("<|begin_of_box|>[[1, 2, 3, 4]]<|end_of_box|>", "glm4v"),
        ("<object><patch_index_0044><patch_index_0884></object>", "kosmos-2"),
        ('{"objects": [{"x_min": 0.1, "y_min": 0.1, "x_max": 0.2, "y_max": 0.2}]}', "moondream"),
    ):
        found = DEFAULT.parse(text, [frame], asked=True)
        assert found.grounding == "found", text
        assert expected in found.notes[0], found.notes


def test_the_default_family_reads_big_numbers_as_pixels() -> None:
    frame = DEFAULT.frame_for((1600, 1200))
    found = DEFAULT.parse('[{"bbox_2d": [800, 600, 1600, 1200], "label": "cat"}]', [frame], asked=True)
    assert found.grounded_phrases[0].bbox == (0.5, 0.5, 1.0, 1.0)
    assert "pixels" in found.notes[0]


def test_the_default_family_stays_quiet_about_plain_answers() -> None:
    found = DEFAULT.parse("A cat on a sofa.", [DEFAULT.frame_for((10, 10))], asked=False)
    assert (found.grounding, found.caption, found.notes) == (None, "A cat on a sofa.", ())


def test_the_documentation_names_every_format() -> None:
    text = (Path(__file__).parent.parent / "docs" / "formats.md").read_text(encoding="utf-8")
    for name in FORMATS:
        assert f"| `{name}` |" in text, name
    code = text.split("```python\n")[1].split("```")[0]
    exec(compile(code, "docs/formats.md", "exec"), {})
