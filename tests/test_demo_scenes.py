"""Drawn scenes say the truth about their pixels, and questions have right answers."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageOps

import vlm_nb.demo
from vlm_nb.demo.scenes import BACKGROUNDS, CANVASES, COLOURS, SHAPES, Scene, SceneObject, draw_scene
from vlm_nb.errors import OptionError

sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "demo_model"))
questions = pytest.importorskip("questions")


def _nearest(pixel, palette):
    return min(palette, key=lambda name: sum((a - b) ** 2 for a, b in zip(pixel, palette[name], strict=True)))


def _scene(*things, background="white", size=(140, 140)):
    objects = tuple(SceneObject(shape, colour, bbox) for shape, colour, bbox in things)
    return Scene(Image.new("RGB", size), objects, background)


PAIR = _scene(("circle", "red", (0.1, 0.1, 0.3, 0.3)), ("square", "blue", (0.5, 0.4, 0.9, 0.8)))


@pytest.mark.parametrize("size", [(140, 140), (168, 112), (56, 224), (800, 600)])
@pytest.mark.parametrize("seed", range(12))
def test_boxes_enclose_the_pixels_that_differ_from_the_background(seed, size):
    scene = draw_scene(seed, max_objects=1, size=size)
    ground = Image.new("RGB", size, scene.image.getpixel((0, 0)))
    x0, y0, x1, y1 = scene.objects[0].bbox
    if x0 * size[0] < 1 and y0 * size[1] < 1:
        pytest.skip("the object covers the corner that shows the background")
    difference = [abs(a - b) for a, b in zip(scene.image.tobytes(), ground.tobytes(), strict=True)]
    mask = Image.frombytes("RGB", size, bytes(difference)).convert("L").point(lambda v: 255 * (v > 8))
    found = mask.getbbox()
    expected = (x0 * size[0], y0 * size[1], x1 * size[0], y1 * size[1])
    assert found == pytest.approx(expected, abs=2.0)


@pytest.mark.parametrize("seed", range(30))
def test_colours_and_background_are_as_named(seed):
    scene = draw_scene(seed, size=None)
    width, height = scene.image.size
    for thing in scene.objects:
        x, y = thing.centre
        assert _nearest(scene.image.getpixel((int(x * width), int(y * height))), COLOURS) == thing.colour
    inside = {
        (x, y)
        for box in (thing.bbox for thing in scene.objects)
        for x in range(int(box[0] * width) - 1, int(box[2] * width) + 2)
        for y in range(int(box[1] * height) - 1, int(box[3] * height) + 2)
    }
    free = next((x, y) for x in range(width) for y in range(height) if (x, y) not in inside)
    assert _nearest(scene.image.getpixel(free), BACKGROUNDS) == scene.background


def test_the_same_seed_draws_the_same_scene():
    one, two = (draw_scene(5, size=None, noise=9, jpeg_quality=60, stretch=0.2) for _ in range(2))
    assert one.image.tobytes() == two.image.tobytes()
    assert one.objects == two.objects
    assert draw_scene(6).objects != one.objects


@pytest.mark.parametrize("seed", range(40))
def test_objects_are_apart_inside_and_from_left_to_right(seed):
    scene = draw_scene(seed, min_objects=2, max_objects=6, size=None, stretch=0.2)
    assert [t.centre[0] for t in scene.objects] == sorted(t.centre[0] for t in scene.objects)
    for i, one in enumerate(scene.objects):
        assert 0 <= one.bbox[0] < one.bbox[2] <= 1
        assert 0 <= one.bbox[1] < one.bbox[3] <= 1
        for other in scene.objects[i + 1 :]:
            assert (
                one.bbox[2] < other.bbox[0]
                or other.bbox[2] < one.bbox[0]
                or one.bbox[3] < other.bbox[1]
                or other.bbox[3] < one.bbox[1]
            )


def test_variety():
    scenes = [draw_scene(seed, size=None, max_objects=6) for seed in range(300)]
    assert {t.shape for s in scenes for t in s.objects} == set(SHAPES)
    assert {t.colour for s in scenes for t in s.objects} == set(COLOURS)
    assert {s.background for s in scenes} == set(BACKGROUNDS)
    assert {s.image.size for s in scenes} == set(CANVASES)
    assert {len(s.objects) for s in scenes} >= {1, 2, 3, 4, 5}


def test_captions_and_boxes_of_a_known_scene():
    assert questions.caption_of(PAIR) == "A red circle and a blue square on a white background."
    text = questions.boxes_json(list(PAIR.objects), (140, 280))
    assert text.startswith("```json\n")
    assert json.loads(text.removeprefix("```json\n").removesuffix("\n```")) == [
        {"bbox_2d": [14, 28, 42, 84], "label": "red circle"},
        {"bbox_2d": [70, 112, 126, 224], "label": "blue square"},
    ]
    assert questions.boxes_json([], (140, 140)) == "```json\n[]\n```"


FACTS = {
    "Is the red circle left of the blue square?": "Yes",
    "Is the red circle to the left of the blue square?": "Yes",
    "Is the red circle right of the square?": "No",
    "Is the circle below the blue square?": "No",
    "Is the blue square under the red circle?": "Yes",
    "How many objects are there?": "2",
    "How many circles are there?": "1",
    "How many stars are there?": "0",
    "What colour is the square?": "blue",
    "What color is the circle?": "red",
    "What shape is the red object?": "circle",
    "Is there a red circle?": "Yes",
    "Is there a red square?": "No",
    "What is the largest object?": "a blue square",
    "What is the smallest object?": "a red circle",
    "What colour is the background?": "white",
}


def test_every_answer_to_a_known_scene_is_right():
    rng, seen = random.Random(0), {}
    for task in set(questions.TASKS) - {"follow_up"}:
        for _ in range(3000):
            for turn in questions.ask(task, PAIR, rng) or ():
                assert seen.setdefault(turn.question, turn.answer) == turn.answer
    assert {question: seen.get(question) for question in FACTS} == FACTS


def test_training_also_varies_how_a_question_is_typed():
    rng = random.Random(0)
    typed = {questions.vary("Is there a circle?", rng) for _ in range(300)}
    assert {"Is there a circle?", "is there a circle", "Is there a circle here?"} <= typed
    assert questions.vary(questions.WORDINGS["detect"][0], rng) == questions.WORDINGS["detect"][0]


def test_ambiguous_questions_are_not_asked():
    twins = _scene(("circle", "red", (0.1, 0.1, 0.3, 0.3)), ("circle", "red", (0.6, 0.6, 0.8, 0.8)))
    rng = random.Random(0)
    assert all(questions.ask(task, twins, rng) is None for task in ("colour", "shape", "relation", "extreme"))


def test_locating_an_absent_kind_gives_an_empty_list():
    rng, answers = random.Random(0), {}
    for _ in range(2000):
        (turn,) = questions.ask("locate", PAIR, rng)
        answers[turn.question] = turn.answer
    prompt = "Locate every {} in the image and output the bbox coordinates in JSON format."
    assert answers[prompt.format("star")] == "```json\n[]\n```"
    assert '"label": "red circle"' in answers[prompt.format("red circle")]


def test_two_images_are_compared():
    rng = random.Random(0)
    other = _scene(("circle", "red", (0.1, 0.1, 0.3, 0.3)))
    turns = {(turn := questions.ask_two(PAIR, other, rng)).question: turn.answer for _ in range(300)}
    assert turns["Which image has more squares?"] == "first"
    assert turns["Which image has more circles?"] == "same"


def test_held_out_wordings_are_not_trained():
    wordings = pytest.importorskip("wordings")
    for task, new in wordings.HELD_OUT.items():
        assert not set(new) & set(wordings.WORDINGS[task])


def test_sample_images_ship_and_one_is_rotated():
    samples = vlm_nb.demo.sample_images()
    assert {"shapes.png", "wide.png", "tall.jpg", "rotated.jpg"} <= set(samples)
    assert sum(path.stat().st_size for path in samples.values()) < 300_000
    with Image.open(samples["rotated.jpg"]) as image:
        assert image.size[::-1] == ImageOps.exif_transpose(image).size


def test_the_samples_come_into_a_folder_and_never_over_another_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = vlm_nb.demo.copy_images()
    assert [str(path) for path in paths] == list(vlm_nb.demo.sample_images())
    assert vlm_nb.demo.copy_images() == paths
    assert vlm_nb.demo.copy_images("new/folder")[0].is_file()
    Path("wide.png").write_text("mine")
    Path("small.png").unlink()
    with pytest.raises(OptionError, match=r"wide\.png is another file"):
        vlm_nb.demo.copy_images()
    assert Path("wide.png").read_text() == "mine"
    assert not Path("small.png").exists()
    with pytest.raises(OptionError, match=r"cannot copy into wide\.png"):
        vlm_nb.demo.copy_images("wide.png/x")
