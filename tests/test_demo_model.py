"""The shipped demo weights, through plain transformers, and the code that trained them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import vlm_nb
import vlm_nb.demo
from vlm_nb.demo.scenes import draw_scene

sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "demo_model"))
evaluate = pytest.importorskip("evaluate")

SCENES = 24
FIRST = 700_000
"""Scenes that neither training nor the card's evaluation draws."""


@pytest.fixture(scope="module")
def answerer():
    return evaluate.Answerer(vlm_nb.demo.weights_path())


@pytest.fixture(scope="module")
def answered(answerer):
    todo = []
    for number in range(FIRST, FIRST + SCENES):
        scene, kind = evaluate.held_out_scene(number, 4)
        rng = evaluate.random.Random(number)
        for task in evaluate.TASKS:
            turns = evaluate.ask(task, scene, rng)
            if turns is not None:
                todo.append(evaluate.Case(turns, (scene,), kind, reworded=False))
    return list(zip(todo, evaluate.answer_all(answerer, todo, 64), strict=True))


def test_short_answers(answered):
    chosen = [(case, reply) for case, reply in answered if case.truth.task in evaluate.SHORT]
    right = [reply.text == case.truth.answer for case, reply in chosen]
    assert len(right) > 150
    assert sum(right) / len(right) >= 0.92


@pytest.mark.parametrize(("task", "least"), [("locate", 0.6), ("detect", 0.8)])
def test_boxes(answered, task, least):
    chosen = [(c, r) for c, r in answered if c.truth.task == task and "bbox" in c.truth.answer]
    compared = [evaluate.compare_boxes(case, reply) for case, reply in chosen]
    assert None not in compared
    values = [value for found in compared for value in found.ious]
    assert sum(values) / len(values) >= least


def test_the_packages_own_prompts_on_a_large_image(answerer):
    scene = draw_scene(evaluate.HELD_OUT_SEED + 5, min_objects=2, max_objects=2, size=(800, 600))
    prompts = (
        "Describe this image.",
        "Locate every object in the image and output the bbox coordinates in JSON format.",
    )
    caption, boxes = answerer([evaluate.Ask((scene.image,), (prompt,)) for prompt in prompts])
    assert caption.text.endswith("background.")
    assert caption.seen == ((140, 112),)
    found = vlm_nb.parse_grounding(
        boxes.text, "qwen2_5_vl", image_size=scene.image.size, input_size=boxes.seen[0]
    )
    assert found.grounding == "found"


def test_an_absent_object_gives_an_empty_list(answerer):
    scene = draw_scene(evaluate.HELD_OUT_SEED + 11, max_objects=2)
    absent = next(shape for shape in ("star", "cross", "circle") if shape not in str(scene.objects))
    question = f"Locate every {absent} in the image and output the bbox coordinates in JSON format."
    (reply,) = answerer([evaluate.Ask((scene.image,), (question,))])
    found = vlm_nb.parse_grounding(reply.text, "qwen2_5_vl", image_size=(140, 140), input_size=(140, 140))
    assert found.grounding in ("none", "found")


def test_batched_answers_equal_single_ones_in_fp32(answered):
    exact = evaluate.Answerer(vlm_nb.demo.weights_path(), dtype=torch.float32)
    asks = [case.ask() for case, _ in answered[:12]]
    together = [reply.text for reply in exact(asks)]
    assert together == [exact([ask])[0].text for ask in asks]


@pytest.mark.parametrize(
    "text", ["How many äpfel? 1024 ¿", '```json\n[\n\t{"bbox_2d": [1, 20, 300, 4000]', "a\n\n b\t"]
)
def test_any_text_survives_the_tokenizer(answerer, text):
    assert answerer.tokenizer.decode(answerer.tokenizer(text).input_ids) == text


def test_the_template_is_qwens(answerer):
    scene = draw_scene(0)
    text = answerer.prompt(evaluate.Ask((scene.image,), ("One?", "Two?"), ("1",)))
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    assert text == (
        f"<|im_start|>user\n{image}One?<|im_end|>\n<|im_start|>assistant\n1<|im_end|>\n"
        "<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("size", "seen"),
    [((140, 140), (140, 140)), ((3000, 3000), (140, 140)), ((50, 50), (112, 112)), ((1600, 900), (168, 84))],
)
def test_every_image_lands_on_the_trained_budget(answerer, size, seen):
    image = draw_scene(1, size=(300, 300)).image.resize(size)
    (rows, columns) = answerer.processor(images=[image], return_tensors="pt")["image_grid_thw"][
        0, 1:
    ].tolist()
    assert (columns * 14, rows * 14) == seen


def test_training_sees_what_transformers_sees(answerer):
    """The packed, batched forward gives the logits that the model gives for each dialogue on its own."""
    fast, packing = pytest.importorskip("fast"), pytest.importorskip("packing")
    plan = packing.Plan(sequences=3, canvas_share=0.7)
    batch = packing.Batches(answerer.tokenizer, plan).batch(3)
    model = evaluate.Answerer(vlm_nb.demo.weights_path(), dtype=torch.float32).model
    trainee = fast.Trainee(model)
    with torch.inference_mode():
        packed = model.lm_head(trainee.hidden(batch))
        for i, grid in enumerate(batch.grids):
            chosen = (batch.blocks[i] == 0) | (batch.blocks[i] == 2)
            single = _alone(model, trainee, batch, i, chosen, grid)
            torch.testing.assert_close(packed[i][chosen], single, atol=2e-4, rtol=1e-3)


def _alone(model, trainee, batch, i, chosen, grid):
    ids = batch.ids[i][chosen][None]
    pixels = batch.patches[i][: int(grid.prod())].float() * trainee.scale + trainee.shift
    frames = pixels.view(-1, 3, 1, 196).expand(-1, -1, 2, -1).reshape(len(pixels), -1)
    return model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=frames,
        image_grid_thw=torch.tensor([[1, *grid.tolist()]]),
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
    ).logits[0]


def test_batches_of_the_demo_model_have_the_boxes_of_single_calls():
    """It stays in float32: in bfloat16 a box depends on the rows that share its batch."""
    images = [draw_scene(n).image for n in range(16)]
    model = vlm_nb.load("demo", keep=True)
    try:
        assert model.info.dtype == "float32"
        alone = [model.ground(image).grounding for image in images]
        for order in (range(16), range(15, -1, -1)):
            found = model(source=[images[n] for n in order], ledger=False)
            assert [outcome.result.grounding for outcome in found] == [alone[n] for n in order]
    finally:
        model.unload()


def test_another_type_of_the_demo_model():
    model = vlm_nb.load("demo", dtype="bfloat16", keep=True)
    try:
        assert model.info.dtype == "bfloat16"
    finally:
        model.unload()
