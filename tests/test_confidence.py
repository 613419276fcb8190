"""How sure a model was of each box: spans in the text, tokens over them, and where the number shows up."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from PIL import ImageFilter

import vlm_nb
from vlm_nb.answering import rated
from vlm_nb.demo.scenes import draw_scene
from vlm_nb.grounding import FORMATS, parse, write
from vlm_nb.grounding.confidence import Tokens, box_confidences
from vlm_nb.request import Completion, Usage
from vlm_nb.results import Frame, GroundedPhrase

FRAME = Frame((1000, 1000), (1000, 1000))
BOXES = [GroundedPhrase("a 2 cat", (0.1, 0.2, 0.3, 0.4)), GroundedPhrase("dog 7", (0.5, 0.5, 0.9, 0.8))]


def tokens_of(text: str, size: int = 3) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


# Where the numbers stand ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_tells_where_the_numbers_stand(name):
    text = "Sure: " + write(BOXES, name, frames=[FRAME])
    found = parse(text, name, frames=[FRAME], asked=True)
    assert len(found.spans) == len(found.grounded_phrases) == 2
    for number, places in enumerate(found.spans):
        ((start, end),) = places
        alone = write([BOXES[number]], name, frames=[FRAME])
        assert text[start:end].strip("[](){}<> \"'") in alone
        assert not set(BOXES[number].phrase.split()) & set(text[start:end].split())
    first, second = (places[0] for places in found.spans)
    assert first[1] <= second[0]


SPOTS = [
    ("thinking", "<think>[1, 2]</think>[10, 20, 30, 40]", "[10, 20, 30, 40]"),
    ("answer tags", "<answer>[10, 20, 30, 40]</answer>", "[10, 20, 30, 40]"),
    ("special tokens", "<|im_start|>a<|im_end|>[10, 20, 30, 40]", "[10, 20, 30, 40]"),
    ("label first", '{"label": "7 up", "bbox_2d": [10, 20, 30, 40]}', "10, 20, 30, 40"),
    ("corners", '{"x1": 10, "y1": 20, "x2": 30, "y2": 40}', '10, "y1": 20, "x2": 30, "y2": 40'),
    ("a string", '{"bbox_2d": "10 20 30 40", "label": "x"}', "10 20 30 40"),
    ("corner pairs", '{"bbox_2d": [[10, 20], [30, 40]]}', "10, 20], [30, 40"),
    ("repeated corner", '{"a": 1, "bbox_2d": [10, 10, 10, 40]}', "10, 10, 10, 40"),
]


@pytest.mark.parametrize(("text", "numbers"), [row[1:] for row in SPOTS], ids=[row[0] for row in SPOTS])
def test_spans_count_in_the_whole_text(text, numbers):
    found = parse(text, "qwen3_vl", frames=[FRAME], asked=True)
    (((start, end),),) = found.spans
    assert text[start:end] == numbers


def test_repeats_are_all_listed():
    text = '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [1, 2, 3, 4], "label": "a"}]'
    found = parse(text, "qwen3_vl", frames=[FRAME], asked=True)
    assert [text[slice(*place)] for place in found.spans[0]] == ["1, 2, 3, 4"] * 2


# Tokens -----------------------------------------------------------------------------------------------------


def test_only_the_tokens_that_hold_digits_count():
    texts = ["[", "10", ", ", "20", ", ", "30", ",", " 40", "]"]
    logprobs = [-9.0, -1.0, -9.0, -2.0, -9.0, -3.0, -9.0, -2.0, -9.0]
    text = "".join(texts)
    assert Tokens(text, texts, logprobs).confidence((0, len(text))) == pytest.approx(math.exp(-2.0))


def test_keys_and_tags_are_no_coordinates():
    texts = ['{"x1"', ": ", "10", ', "y1": ', "20", "}", "<loc_", "300", ">"]
    logprobs = [-9.0, -9.0, -1.0, -9.0, -1.0, -9.0, -9.0, -1.0, -9.0]
    text = "".join(texts)
    assert Tokens(text, texts, logprobs).confidence((0, len(text))) == pytest.approx(math.exp(-1.0))


def test_tokens_that_servers_spell_otherwise():
    text = "né  [10, 20]"
    tokens = Tokens(
        text, ["n", "\ufffd", "\ufffd", " [", "10", ",", " 20", "]"], [-9.0] * 4 + [-1.0, -9, -1.0, -9]
    )
    assert tokens.confidence((4, 12)) == pytest.approx(math.exp(-1.0))


def test_reasoning_that_has_no_tokens_stands_in_front():
    text = "<think>at 10</think>10 20"
    assert Tokens(text, ["10", " 20"], [-1.0, -1.0]).confidence((20, 25)) == pytest.approx(math.exp(-1.0))
    assert Tokens(text, ["10", " 20"], [-1.0, -1.0]).confidence((7, 12)) is None


def test_a_number_without_its_tokens_has_no_confidence():
    assert Tokens("10 20", ["10"], [-1.0]).confidence((0, 5)) is None
    assert Tokens("ab", ["ab"], [-1.0]).confidence((0, 2)) is None


def test_repeats_of_a_cut_answer_have_no_confidence():
    text = "10 10 20"
    spans = (((0, 2), (3, 5)), ((6, 8),), ())
    texts, logprobs = ["10", " 10", " 20"], [-1.0, -0.0, -2.0]
    cut = box_confidences(text, spans, texts, logprobs, cut=True)
    whole = box_confidences(text, spans, texts, logprobs, cut=False)
    assert cut == [None, pytest.approx(math.exp(-2)), None]
    assert whole[0] == pytest.approx(math.exp(-1))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_any_cut_into_tokens_covers_every_format(size):
    for name in FORMATS:
        text = write(BOXES, name, frames=[FRAME])
        found = parse(text, name, frames=[FRAME], asked=True)
        texts = tokens_of(text, size)
        values = box_confidences(text, found.spans, texts, [-0.5] * len(texts), cut=False)
        assert values == [pytest.approx(math.exp(-0.5))] * 2, name


# In answers -------------------------------------------------------------------------------------------------

BOX = '[{"bbox_2d": [10, 20, 110, 120], "label": "cat"}]'
OTHER = '[{"bbox_2d": [510, 20, 710, 120], "label": "dog"}]'


def rated_as(text, *, logprob=None, reason="stop"):
    texts = None if logprob is None else tuple(tokens_of(text))
    logprobs = None if texts is None else (logprob,) * len(texts)
    usage = Usage(finish_reason=reason)
    done = Completion(text=text, token_texts=texts, token_logprobs=logprobs, usage=usage)
    return [p.confidence for p in rated(parse(text, "qwen2_5_vl", frames=[FRAME], asked=True), done)]


def test_without_probabilities_there_is_none():
    assert rated_as(BOX) == [None]


def test_a_score_that_the_model_wrote_wins():
    assert rated_as(BOX.replace('"label"', '"score": 0.75, "label"'), logprob=-3.0) == [0.75]
    assert rated_as(BOX, logprob=-3.0) == [pytest.approx(math.exp(-3))]


@pytest.mark.parametrize("reason", ["length", "runaway"])
def test_a_loop_is_not_sure_of_what_it_repeats(reason):
    text = f"{BOX}{OTHER}{OTHER}"
    assert rated_as(text, logprob=-1.0, reason=reason) == [pytest.approx(math.exp(-1)), None]
    assert None not in rated_as(text, logprob=-1.0)


@pytest.fixture(scope="module")
def demo():
    model = vlm_nb.load("demo", dtype="float32", keep=True)
    yield model
    model.unload()


@pytest.fixture(scope="module")
def images():
    return [draw_scene(810_000 + n, min_objects=1, max_objects=3, size=(280, 280)).image for n in range(20)]


@pytest.fixture(scope="module")
def clear(demo, images):
    return [outcome.unwrap() for outcome in demo(source=images, show_progress=False, ledger=False)]


def confidences(predictions):
    return [phrase.confidence for prediction in predictions for phrase in prediction.grounded_phrases]


def test_every_box_of_the_demo_model_has_one(clear):
    values = confidences(clear)
    assert len(values) >= 20
    assert all(value is not None and 0.0 < value <= 1.0 for value in values)


def test_blurred_boxes_are_less_sure(demo, images, clear):
    soft = [image.filter(ImageFilter.GaussianBlur(32)) for image in images]
    blurred = confidences(o.unwrap() for o in demo(source=soft, show_progress=False, ledger=False))
    sharp = confidences(clear)
    assert sum(blurred) / len(blurred) < 0.9 * sum(sharp) / len(sharp)


def overlap(one, other):
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, wide) * max(0.0, high)
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (area - shared)


def test_sure_boxes_lie_better_than_vague_ones(demo):
    scenes = [draw_scene(820_000 + n, min_objects=2, max_objects=4) for n in range(30)]
    images = [scene.image for scene in scenes]
    images += [image.filter(ImageFilter.GaussianBlur(12)) for image in images]
    rated = []
    outcomes = demo(source=images, show_progress=False, ledger=False)
    for scene, outcome in zip(scenes * 2, outcomes, strict=True):
        for phrase in outcome.unwrap().grounded_phrases:
            best = max(overlap(phrase.bbox, thing.bbox) for thing in scene.objects)
            rated.append((phrase.confidence, best))
    rated.sort()
    half = len(rated) // 2
    vague, sure = (sum(iou for _, iou in part) / len(part) for part in (rated[:half], rated[half:]))
    assert half >= 40
    assert sure > vague + 0.1


def test_a_batch_is_as_sure_as_single_calls(demo, images, clear):
    for image, batched in zip(images[:6], clear, strict=False):
        alone = demo(source=image).unwrap()
        assert [p.bbox for p in alone.grounded_phrases] == [p.bbox for p in batched.grounded_phrases]
        assert confidences([alone]) == pytest.approx(confidences([batched]), abs=1e-4)


def test_it_reaches_tables_exports_and_displays(demo, images, clear, tmp_path):
    frame = pd.DataFrame({"image": images[:4]})
    grounded = frame.vlm.ground(model=demo, show_progress=False)
    rows = grounded.vlm.boxes()
    expected = confidences(clear[:4])
    assert rows["confidence"].tolist() == pytest.approx(expected, abs=1e-4)
    coco = grounded.vlm.to_coco(tmp_path / "coco.json")
    assert [a["score"] for a in coco["annotations"]] == pytest.approx(expected, abs=1e-4)
    again = frame.vlm.ground(model=demo, show_progress=False)
    assert again.vlm.boxes()["confidence"].tolist() == pytest.approx(expected, abs=1e-4)
    plain = clear[0].to_dict()["grounded_phrases"][0]
    assert plain["confidence"] == expected[0]
    html = demo(source=images[0]).unwrap()._repr_mimebundle_()["text/html"]
    assert f"confidence {expected[0]:.2f}</title>" in html
    assert 'title="confidence ' in html


def test_a_box_that_a_person_moved_has_none():
    from vlm_nb.explorer.edits import Boxes

    boxes = Boxes().joined([GroundedPhrase("cat", (0.1, 0.1, 0.4, 0.4), confidence=0.5)])
    renamed = boxes.apply({"op": "rename", "id": 1, "phrase": "dog"}).now[0].to_phrase()
    moved = boxes.apply({"op": "change", "id": 1, "bbox": [0.2, 0.2, 0.4, 0.4]}).now[0].to_phrase()
    assert (renamed.confidence, moved.confidence) == (0.5, None)
