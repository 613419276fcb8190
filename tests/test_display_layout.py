"""Where boxes and labels go: the overlay rules as properties."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_nb.display import COLOURS, Mark, lay_out, phrase_styles
from vlm_nb.display.glyphs import shorten
from vlm_nb.display.layout import LABEL_CHARACTERS, label_text
from vlm_nb.results import BBox, GroundedPhrase


def measure(text: str) -> tuple[float, float]:
    return 8.0 + 7 * len(text), 17.0


def boxes(*places: BBox, phrase: str = "thing") -> list[GroundedPhrase]:
    return [GroundedPhrase(phrase, place) for place in places]


def one(bbox: BBox, size: tuple[int, int] = (400, 300), phrase: str = "thing") -> Mark:
    return lay_out(boxes(bbox, phrase=phrase), size, measure).marks[0]


def crosses(a: Mark, b: Mark) -> bool:
    if a.label_rect is None or b.label_rect is None:
        return False
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.label_rect, b.label_rect
    return ax0 < bx1 and bx0 < ax1 and ay0 < by1 and by0 < ay1


PLACES = [
    ("above, at the left edge of the box", (0.25, 0.5, 0.75, 0.9), (100.0, 133.0)),
    ("inside where there is no room above", (0.25, 0.0, 0.75, 0.9), (100.0, 0.0)),
    ("below where the box is flat and at the top", (0.25, 0.0, 0.75, 0.1), (100.0, 30.0)),
    ("clamped at the right edge", (0.97, 0.5, 1.0, 0.9), (400 - 43.0, 133.0)),
]


@pytest.mark.parametrize(("bbox", "corner"), [row[1:] for row in PLACES], ids=[row[0] for row in PLACES])
def test_label_places(bbox: BBox, corner: tuple[float, float]) -> None:
    mark = one(bbox)
    assert mark.label == "thing"
    assert mark.label_rect is not None
    assert mark.label_rect[:2] == corner


def test_beside_where_a_flat_box_has_no_room_above_or_below() -> None:
    mark = one((0.1, 0.0, 0.5, 1.0), (400, 20))
    assert mark.label_rect == (200.0, 0.0, 243.0, 17.0)


def test_a_number_where_no_label_fits_and_none_where_no_number_does() -> None:
    assert one((0.0, 0.0, 1.0, 1.0), (30, 60), "a long phrase").label == "1"
    tiny = one((0.0, 0.0, 1.0, 1.0), (8, 8))
    assert (tiny.label, tiny.label_rect) == ("", None)


def test_eight_phrases_have_eight_looks() -> None:
    phrases = [GroundedPhrase(f"p{i}", (0.1, 0.1, 0.9, 0.9)) for i in range(16)]
    styles = list(phrase_styles(phrases).values())
    assert [style.colour for style in styles[:7]] == list(COLOURS)
    assert [style.dashed for style in styles] == [False] * 7 + [True] * 9
    assert styles[7].colour == COLOURS[0]
    assert {style.colour for style in styles if style.ink == "#FFFFFF"} == {"#0072B2"}


def test_equal_phrases_share_a_colour() -> None:
    styles = phrase_styles([*boxes((0, 0, 1, 1), (0, 0, 0.5, 1)), *boxes((0, 0, 1, 1), phrase="other")])
    assert [style.order for style in styles.values()] == [0, 1]


def test_ink_is_readable_on_every_colour() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    styles = phrase_styles([GroundedPhrase(f"p{i}", (0, 0, 1, 1)) for i in range(7)])
    for style in styles.values():
        low, high = sorted((luminance(style.colour), luminance(style.ink)))
        assert (high + 0.05) / (low + 0.05) >= 5.19 - 0.005, style


def test_numbers_from_the_eighth_phrase() -> None:
    phrases = [GroundedPhrase(f"p{i}", (0.1 * i, 0.1 * i, 0.1 * i + 0.1, 0.1 * i + 0.1)) for i in range(9)]
    layout = lay_out(phrases, (900, 900), measure)
    labels = {mark.number: mark.label for mark in layout.marks}
    assert labels[7] == "p6"
    assert labels[8] == "8 p7"
    assert layout.numbered


@pytest.mark.parametrize(("count", "numbered"), [(12, False), (13, True)])
def test_more_than_twelve_boxes_bear_numbers_only(count: int, numbered: bool) -> None:
    many = boxes(*[(i / count, 0.5, (i + 0.9) / count, 0.6) for i in range(count)], phrase="x")
    layout = lay_out(many, (1600, 400), measure)
    assert layout.numbered is numbered
    assert {mark.label for mark in layout.marks} == (
        {str(i + 1) for i in range(count)} if numbered else {"x"}
    )


def test_the_largest_is_drawn_first() -> None:
    layout = lay_out(boxes((0, 0, 0.1, 0.1), (0, 0, 1, 1), (0, 0, 0.5, 0.5)), (400, 400), measure)
    assert [mark.number for mark in layout.marks] == [2, 3, 1]


def test_long_labels_end_in_an_ellipsis() -> None:
    mark = one((0.1, 0.5, 0.9, 0.9), phrase="a very long phrase that says too much about it")
    assert mark.label == "a very long phrase that…"
    assert len(mark.label) <= LABEL_CHARACTERS + 1
    assert shorten("👩\u200d👩\u200d👧", 2) == "👩…", "a joined sequence is not left with a dangling joiner"


def test_labels_hold_no_control_characters() -> None:
    assert one((0.1, 0.5, 0.9, 0.9), phrase="a\nb\x07\u202ec").label == "a b␇⟨U+202E⟩c"
    assert one((0.1, 0.5, 0.9, 0.9), phrase="").label == "1"


def test_text_without_glyphs_becomes_its_number() -> None:
    layout = lay_out(boxes((0.1, 0.5, 0.9, 0.9)), (400, 300), measure, drawable=lambda text: False)
    assert layout.marks[0].label == "1"
    assert layout.numbered


def test_points_and_boxes_without_area() -> None:
    point = GroundedPhrase("p", (0.5, 0.5, 0.5, 0.5), point=(0.5, 0.5))
    bare = GroundedPhrase("p", (0.25, 0.5, 0.25, 0.5))
    line = GroundedPhrase("p", (0.25, 0.2, 0.25, 0.8))
    edge = GroundedPhrase("p", (1.0, 0.0, 1.0, 1.0))
    by_number = {m.number: m for m in lay_out([point, bare, line, edge], (400, 300), measure).marks}
    assert by_number[1].point == (200, 150)
    assert by_number[2].point == (100, 150)
    assert by_number[3].point is None
    assert by_number[3].rect == (99, 60, 101, 240)
    assert by_number[4].rect == (398, 0, 400, 300)


def test_boxes_of_other_images_are_left_out_but_counted() -> None:
    phrases = [GroundedPhrase("a", (0, 0, 1, 1), image_index=1), GroundedPhrase("b", (0, 0, 1, 1))]
    layout = lay_out(phrases, (400, 300), measure)
    assert [(mark.number, mark.phrase) for mark in layout.marks] == [(2, "b")]


unit = st.floats(0, 1)
place = st.tuples(unit, unit, unit, unit).map(
    lambda v: (min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3]))
)
some_boxes = st.lists(st.tuples(place, st.sampled_from(["a", "a longer phrase", "x" * 60])), max_size=30)
sizes = st.tuples(st.integers(1, 1200), st.integers(1, 1200))


@settings(max_examples=150, deadline=None)
@given(some_boxes, sizes, st.sampled_from([0.75, 1.0, 1.75]))
def test_no_label_leaves_the_image_or_crosses_another(
    given_boxes: list[tuple[BBox, str]], size: tuple[int, int], scale: float
) -> None:
    phrases = [GroundedPhrase(text, bbox) for bbox, text in given_boxes]
    layout = lay_out(phrases, size, measure, scale=scale)
    assert sorted(mark.number for mark in layout.marks) == list(range(1, len(phrases) + 1))
    for mark in layout.marks:
        x0, y0, x1, y1 = mark.label_rect or (0, 0, 0, 0)
        assert x0 >= 0
        assert y0 >= 0
        assert x1 <= size[0]
        assert y1 <= size[1]
        assert bool(mark.label) is (mark.label_rect is not None)
        assert 0 <= mark.rect[0] <= mark.rect[2] <= size[0]
        assert 0 <= mark.rect[1] <= mark.rect[3] <= size[1]
        assert mark.label in (label_text(mark), str(mark.number), "")
    assert not any(crosses(a, b) for a, b in itertools.combinations(layout.marks, 2))


def test_thirty_overlapping_boxes_all_keep_a_label() -> None:
    shift = [
        (0.2 + 0.013 * i, 0.2 + 0.011 * ((i * 7) % 30), 0.5 + 0.013 * i, 0.6 + 0.009 * i) for i in range(30)
    ]
    layout = lay_out(boxes(*shift), (800, 600), measure)
    assert all(mark.label_rect for mark in layout.marks)
    assert not any(crosses(a, b) for a, b in itertools.combinations(layout.marks, 2))


def test_two_hundred_boxes_are_quick() -> None:
    grid = [(x / 20, y / 10, x / 20 + 0.06, y / 10 + 0.12) for x in range(20) for y in range(10)]
    layout = lay_out(boxes(*grid), (560, 460), measure)
    assert len(layout.marks) == 200
    assert not any(crosses(a, b) for a, b in itertools.combinations(layout.marks, 2))
