# ruff: noqa: E501, A001 - long tables; "format" is what the package calls it
"""Properties of the parsers: write → parse gives the boxes back, and no text makes them raise or lie.

``make fuzz`` (``pytest -m fuzz``) runs the same properties with many more examples.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlm_nb.grounding import FORMATS, MAX_BOXES, Grounding, parse, write
from vlm_nb.results import Frame, GroundedPhrase

LIGHT = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
HEAVY = settings(max_examples=3_000, deadline=None, suppress_health_check=list(HealthCheck))

unit = st.floats(0, 1, allow_nan=False, width=32)
sides = st.integers(28, 4000)
# Characters that are structure in some format are left out of phrases, as the formats cannot escape them.
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Z"), exclude_characters="◁▷<>{}[]()\"'\\|;:=-–*_`#,."), min_size=1, max_size=12)  # fmt: skip
phrases = st.lists(words, min_size=1, max_size=4).map(" ".join).filter(lambda t: any(c.isalpha() for c in t))


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """A plain frame, or one where the original is padded inside what the model sees."""
    seen = draw(sides), draw(sides)
    if draw(st.booleans()):
        return Frame((draw(sides), draw(sides)), seen)
    left, top = draw(st.integers(0, seen[0] // 3)), draw(st.integers(0, seen[1] // 3))
    content = (float(left), float(top), float(seen[0] - left), float(seen[1] - top))
    return Frame((draw(sides), draw(sides)), seen, content)


@st.composite
def boxes(draw: st.DrawFn) -> GroundedPhrase:
    xs, ys = sorted((draw(unit), draw(unit))), sorted((draw(unit), draw(unit)))
    return GroundedPhrase(draw(phrases), (xs[0], ys[0], xs[1], ys[1]))


def step(format: str, frame: Frame) -> float:
    """The largest difference, as a fraction of the original, that writing as ``format`` can make."""
    space = FORMATS[format].space
    unit_px = max((space.step or 1.0) / (space.scale or side) * side for side in frame.seen)
    x0, y0, x1, y1 = frame.content or (0, 0, *frame.seen)
    cells = 1.0 if format in ("kosmos-2", "paligemma", "florence2") else 0.5
    return cells * unit_px / min(x1 - x0, y1 - y0) + 1e-6


def round_trip(format: str, frame: Frame, given_boxes: list[GroundedPhrase]) -> None:
    text = write(given_boxes, format, frames=[frame])
    read = parse(text, format, frames=[frame], asked=True)
    expected = {(p.phrase if format != "moondream" else "", p.bbox) for p in given_boxes}
    if FORMATS[format].points:
        centres = {(n, ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2)) for n, b in expected}
        expected = {(n, (*c, *c)) for n, c in centres}
    assert read.grounding == "found", text
    slack = step(format, frame)
    for name, box in expected:
        assert any(near(found, name, box, slack) for found in read.grounded_phrases), (text, name, box, read)
    for found in read.grounded_phrases:
        assert any(near(found, name, box, slack) for name, box in expected), (text, found)


def near(found: GroundedPhrase, name: str, box: tuple[float, ...], slack: float) -> bool:
    return found.phrase == name and all(abs(a - b) <= slack for a, b in zip(found.bbox, box, strict=True))


def check_sane(text: str, format: str | None, frame: Frame, asked: bool) -> Grounding:
    """What holds for any text whatever."""
    found = parse(text, format, frames=[frame, frame], asked=asked)
    assert len(found.grounded_phrases) <= MAX_BOXES
    for phrase in found.grounded_phrases:
        x0, y0, x1, y1 = phrase.bbox
        assert 0 <= x0 <= x1 <= 1
        assert 0 <= y0 <= y1 <= 1
        assert len(phrase.phrase) <= 500
        assert phrase.image_index in (0, 1)
    assert (found.grounding == "found") == bool(found.grounded_phrases)
    if asked:
        assert found.grounding is not None
    assert parse(text, format, frames=[frame, frame], asked=asked) == found
    return found


pieces = st.sampled_from(
    [
        *("[", "]", "{", "}", "(", ")", ",", ":", '"', "'", "\\", "\n", " ", "```json\n", "```", "-", ".", "1e999", "NaN"),
        *('"bbox_2d"', '"box_2d"', '"label"', '"point_2d"', '"objects"', '"x_min"', '"boxes"', "null", "10", "0.5", "999"),
        *("<box>", "</box>", "<ref>", "</ref>", "<|box_start|>", "<|box_end|>", "<|det|>", "<|/det|>", "<|ref|>"),
        *("<|begin_of_box|>", "<|end_of_box|>", "<loc0500>", "<loc_500>", "<loc", "<seg001>", "<object>", "</object>"),
        *("<patch_index_0044>", "<phrase>", "</phrase>", "<points ", "<point ", 'x1="5"', 'y1="6"', 'coords="', "1 1 100 200"),
        *("</points>", ">", "alt=", "<think>", "</think>", "<answer>", "There are none.", "cat", "[1, 2, 3, 4]", "\ud7ff"),
    ]
)  # fmt: skip
mixtures = st.one_of(st.lists(pieces, max_size=60).map("".join), st.text(max_size=200))
formats = st.sampled_from([*FORMATS, None])


@pytest.mark.parametrize("format", FORMATS)
def test_write_then_parse(format: str) -> None:
    @LIGHT
    @given(frames(), st.lists(boxes(), min_size=1, max_size=4))
    def check(frame: Frame, given_boxes: list[GroundedPhrase]) -> None:
        round_trip(format, frame, given_boxes)

    check()


@settings(LIGHT, max_examples=800)
@given(mixtures, formats, frames(), st.booleans())
def test_any_text(text: str, format: str | None, frame: Frame, asked: bool) -> None:
    check_sane(text, format, frame, asked)


@pytest.mark.parametrize("format", FORMATS)
def test_truncation_keeps_what_was_complete(format: str) -> None:
    """Cutting a written answer anywhere never raises, and never invents a box that was not there."""
    boxes_given = [GroundedPhrase("cat", (0.1, 0.2, 0.3, 0.4)), GroundedPhrase("dog", (0.5, 0.6, 0.7, 0.8))]
    frame = Frame((640, 480), (1000, 1000))
    text = write(boxes_given, format, frames=[frame])
    whole = {p.bbox for p in parse(text, format, frames=[frame], asked=True).grounded_phrases}
    for end in range(len(text)):
        cut = check_sane(text[:end], format, frame, asked=True)
        assert {p.bbox for p in cut.grounded_phrases} <= whole, text[:end]


@pytest.mark.fuzz
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("format", FORMATS)
def test_fuzz_write_then_parse(format: str) -> None:
    @HEAVY
    @given(frames(), st.lists(boxes(), min_size=1, max_size=4))
    def check(frame: Frame, given_boxes: list[GroundedPhrase]) -> None:
        round_trip(format, frame, given_boxes)

    check()


@pytest.mark.fuzz
@pytest.mark.timeout(7200)
@settings(HEAVY, max_examples=60_000)
@given(mixtures, formats, frames(), st.booleans())
def test_fuzz_any_text(text: str, format: str | None, frame: Frame, asked: bool) -> None:
    check_sane(text, format, frame, asked)


HOSTILE = {
    "square openers": "[",
    "curly openers": "{",
    "round openers": "(",
    "pairs": "[]",
    "closers": "]}",
    "quotes": '"',
    "both quotes": "'\"",
    "backslashes": "\\",
    "open strings": '["',
    "escaped quotes": '["{\\"',
    "key and colon": '{"bbox_2d":',
    "digits": "1",
    "dots": "1.",
    "exponents": "1e",
    "minus": "-",
    "spaces": " ",
    "newlines": "\n",
    "quoted spaces": '["   ',
    "bare boxes": "[1, 2, 3, 4]",
    "objects": '{"bbox_2d": [1, 2, 3, 4], "label": "a"},',
    "box tags": "<box>",
    "closing tags": "</box>",
    "ref tags": "<ref>",
    "ref and box": "<ref>a<box>1",
    "tagged boxes": "<ref>a</ref><box>[[1, 2, 3, 4]]</box>",
    "loc tokens": "<loc0001>",
    "florence tokens": "a<loc_1>",
    "patches": "<patch_index_0001>",
    "phrases": "<phrase>a",
    "point openers": "<points ",
    "point attributes": 'x1="1" ',
    "point in point": '<points x1="1" y1="1" ',
    "coords": '<points coords="1 1 100 100 ',
    "alt": "alt='",
    "think": "<think>",
    "end of think": "</think>",
    "pairs of numbers": "(1,2),",
    "fences": "```json\n",
    "none": "there is no ",
    "angle brackets": "<",
    "half tags": "<|box_start",
}


def seconds(text: str, format: str | None) -> float:
    started = time.process_time()
    check = parse(text, format, frames=[Frame((640, 480), (644, 476))], asked=True)
    assert len(check.grounded_phrases) <= MAX_BOXES
    return time.process_time() - started


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.timeout(60)
def test_hostile_text_takes_linear_time(name: str) -> None:
    """10 and 40 kB: a quadratic reader would take sixteen times as long, a linear one four."""
    piece = HOSTILE[name]
    for format in ("qwen_vl", "qwen2_5_vl", "glm4v", "paligemma", "florence2", "kosmos-2", "molmo", None):
        small, large = (piece * (length // len(piece)) for length in (10_000, 40_000))
        if seconds(large, format) > 0.1:  # slow: is it the machine, or the reader?
            ratio = min(seconds(large, format) for _ in range(3)) / min(
                seconds(small, format) for _ in range(3)
            )
            assert ratio < 10, f"{format}: four times the text took {ratio:.1f} times as long"


@pytest.mark.fuzz
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_in_a_second(name: str) -> None:
    """One second each is the promise; the guard here is generous, for busy machines."""
    piece = HOSTILE[name]
    worst = max((seconds(piece * (1_000_000 // len(piece)), f), str(f)) for f in (*FORMATS, None))
    print(f"{name}: {worst[0]:.2f} s ({worst[1]})")
    assert worst[0] < 5
