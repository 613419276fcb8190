"""Agreement on well-formed text with other readers: supervision's, and transformers' own post-processors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlm_nb.grounding import parse, write
from vlm_nb.results import Frame, GroundedPhrase

SIZE = (640, 480)
SEEN = (644, 476)
FRAME = Frame(SIZE, SEEN)
SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

edge = st.integers(0, 100)
label = st.sampled_from(["cat", "red car", "a dog on a sofa", "tree-house", "person 2"])


@st.composite
def spots(draw: st.DrawFn) -> GroundedPhrase:
    x0, x1 = sorted(draw(st.lists(edge, min_size=2, max_size=2, unique=True)))
    y0, y1 = sorted(draw(st.lists(edge, min_size=2, max_size=2, unique=True)))
    return GroundedPhrase(draw(label), (x0 / 100, y0 / 100, x1 / 100, y1 / 100))


answers = st.lists(spots(), min_size=1, max_size=5, unique_by=lambda p: (p.phrase, p.bbox))


def readers() -> dict[str, Callable[[str], tuple[Any, ...]]]:
    vlm = pytest.importorskip(
        "supervision.detection.vlm", reason="supervision is not installed (extra: export)"
    )
    return {
        "qwen2_5_vl": lambda text: vlm.from_qwen_2_5_vl(text, SEEN, SIZE),
        "qwen3_vl": lambda text: vlm.from_qwen_3_vl(text, SIZE),
        "deepseek_vl2": lambda text: vlm.from_deepseek_vl_2(text, SIZE),
        "paligemma": lambda text: vlm.from_paligemma(text, SIZE),
        "gemini": lambda text: vlm.from_google_gemini_2_0(text, SIZE),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", ["qwen2_5_vl", "qwen3_vl", "deepseek_vl2", "paligemma", "gemini"])
def test_supervision(format: str) -> None:
    read = readers()[format]

    @SETTINGS
    @given(answers)
    def check(phrases: list[GroundedPhrase]) -> None:
        text = write(phrases, format, frames=[FRAME])
        ours = parse(text, format, frames=[FRAME], asked=True).grounded_phrases
        xyxy, _, names = read(text)
        assert [phrase.phrase for phrase in ours] == list(names)
        for phrase, box in zip(ours, np.asarray(xyxy, dtype=float), strict=True):
            expected = np.clip(box / [*SIZE, *SIZE], 0, 1)
            assert phrase.bbox == pytest.approx(expected, abs=2e-6)

    check()


@pytest.mark.filterwarnings("ignore")
def test_supervision_gemini_boxes_wrapper() -> None:
    vlm = pytest.importorskip(
        "supervision.detection.vlm", reason="supervision is not installed (extra: export)"
    )
    cat, dog = {"box_2d": [100, 200, 300, 400], "label": "cat"}, {"box_2d": [1, 2, 3, 4], "label": "dog"}
    text = json.dumps({"boxes": [cat, dog]})
    xyxy, _, names, _, _ = vlm.from_google_gemini_3_6(text, SIZE)
    ours = parse(text, "gemini", frames=[FRAME], asked=True).grounded_phrases
    assert [phrase.phrase for phrase in ours] == list(names)
    assert np.array([phrase.bbox for phrase in ours]) * [*SIZE, *SIZE] == pytest.approx(xyxy)


@pytest.mark.filterwarnings("ignore")
def test_supervision_moondream() -> None:
    vlm = pytest.importorskip(
        "supervision.detection.vlm", reason="supervision is not installed (extra: export)"
    )
    objects = {"objects": [{"x_min": 0.1, "y_min": 0.2, "x_max": 0.3, "y_max": 0.4}]}
    xyxy = vlm.from_moondream(objects, SIZE)
    ours = parse(str(objects), "moondream", frames=[FRAME], asked=True).grounded_phrases
    assert np.array([phrase.bbox for phrase in ours]) * [*SIZE, *SIZE] == pytest.approx(xyxy)


@SETTINGS
@given(st.lists(st.tuples(st.integers(0, 1023), st.integers(0, 1023)), min_size=1, max_size=4))
def test_transformers_kosmos2(cells: list[tuple[int, int]]) -> None:
    from transformers.models.kosmos2.processing_kosmos2 import (
        clean_text_and_extract_entities_with_bboxes as theirs,
    )

    ordered = [tuple(sorted(pair)) for pair in cells]
    ordered = [(a, b) for a, b in ordered if a % 32 <= b % 32]  # a lower-right cell is not left of the other
    text = "".join(
        f"<phrase> thing {i}</phrase><object><patch_index_{a:04d}><patch_index_{b:04d}></object>"
        for i, (a, b) in enumerate(ordered)
    )
    caption, entities = theirs(text)
    ours = parse(text, "kosmos-2", frames=[FRAME], asked=True)
    assert ours.caption.replace(" ", "") == caption.replace(" ", "")
    expected = [(name.strip(), box) for name, _, boxes in entities for box in boxes]
    assert [phrase.phrase for phrase in ours.grounded_phrases] == [name for name, _ in expected]
    for phrase, (_, box) in zip(ours.grounded_phrases, expected, strict=True):
        assert phrase.bbox == pytest.approx(box)


@SETTINGS
@given(answers)
def test_transformers_florence2(phrases: list[GroundedPhrase]) -> None:
    from transformers.models.florence2.processing_florence2 import Florence2PostProcessor

    text = write(phrases, "florence2", frames=[FRAME])
    theirs = Florence2PostProcessor.parse_description_with_bboxes_from_text_and_spans(
        _Quantizer(), text, image_size=SIZE
    )
    ours = parse(text, "florence2", frames=[FRAME], asked=True).grounded_phrases
    assert [phrase.phrase for phrase in ours] == [item["cat_name"] for item in theirs]
    for phrase, item in zip(ours, theirs, strict=True):
        pixels = np.array(phrase.bbox) * [*SIZE, *SIZE]
        assert np.abs(pixels - item["bbox"]).max() <= 1  # theirs are cut to whole pixels


class _Quantizer:
    """The part of Florence-2's post-processor that its parser needs, without a tokenizer."""

    quantize_bins = (1000, 1000)

    def dequantize(self, locations: Any, size: tuple[int, int]) -> Any:
        from transformers.models.florence2.processing_florence2 import Florence2PostProcessor

        return Florence2PostProcessor.dequantize(self, locations, size)
