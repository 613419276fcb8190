"""The tables of tests/grounding_cases, each spelled for every format that shares its syntax."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from grounding_cases import A, B, Case, json_table, point_table, spelled, tag_table, token_table

from vlm_nb.errors import OptionError
from vlm_nb.grounding import FORMATS, MAX_BOXES, Grounding, parse
from vlm_nb.grounding.answer import says_none
from vlm_nb.results import Frame

FRAMES = (Frame((4000, 3000), (1000, 1000)), Frame((300, 600), (1000, 1000)))
"""A seen image of 1000 × 1000, so that thousandths are pixels as well."""


def per_mille(value: float) -> str:
    return f"{value:g}"


def fraction(value: float) -> str:
    return f"{value / 1000:g}"


JSON = {
    "qwen2_5_vl": ("bbox_2d", per_mille, False),
    "qwen3_vl": ("bbox_2d", per_mille, False),
    "kimi_vl": ("bbox_2d", fraction, False),
    "gemini": ("box_2d", per_mille, True),
}


def pairs(box: str) -> str:
    return f"(§{box}1,§{box}2),(§{box}3,§{box}4)"


def nested(box: str) -> str:
    return f"[[§{box}]]"


def bare(box: str) -> str:
    return f"§{box}1 §{box}2 §{box}3 §{box}4"


def of_999(value: float) -> str:
    return f"{value * 0.999:g}"


REF, BOX = ("<ref>", "</ref>"), ("<box>", "</box>")
TAGS = {
    "qwen_vl": (*REF, *BOX, pairs),
    "qwen2_vl": (
        *("<|object_ref_start|>", "<|object_ref_end|>"),
        *("<|box_start|>", "<|box_end|>"),
        pairs,
    ),
    "internvl": (*REF, *BOX, nested),
    "deepseek_vl2": ("<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", nested),
    "minicpmv": (*REF, *BOX, bare),
    "glm4v": (*REF, "<|begin_of_box|>", "<|end_of_box|>", nested),
}
OWN_TAGS = {"glm4v": tag_table.GLM, "qwen2_vl": tag_table.QWEN2}


def tag_rows() -> Iterator[tuple[str, Case]]:
    for name, (ref, ref_end, box, box_end, style) in TAGS.items():
        tags = {"§R": ref, "§r": ref_end, "§X": box, "§x": box_end}
        for case in (*tag_table.CASES, *OWN_TAGS.get(name, ())):
            text = case.text.replace("§[A]", style("A")).replace("§[B]", style("B"))
            number = of_999 if name == "deepseek_vl2" else per_mille
            yield name, spelled(replace(case, text=text), number, words=tags)


def pali(box: tuple[int, ...]) -> list[str]:
    x0, y0, x1, y1 = (f"<loc{round(v * 1.024):04d}>" for v in box)
    return [y0, x0, y1, x1]


def florence(box: tuple[int, ...]) -> list[str]:
    return [f"<loc_{v}>" for v in box]


def token_rows() -> Iterator[tuple[str, Case]]:
    tables = (("paligemma", token_table.PALIGEMMA, pali), ("florence2", token_table.FLORENCE, florence))
    for name, table, spell in tables:
        for case in table:
            text = case.text
            for mark, box in (("[A]", A), ("[B]", B)):
                tokens = spell(box)
                text = text.replace(f"§L{mark}", "".join(tokens)).replace(f"§S{mark}", " ".join(tokens))
                text = text.replace(f"§V{mark}", "".join(tokens[2:] + tokens[:2]))
            yield name, replace(case, text=text)
    yield from (("kosmos-2", case) for case in token_table.KOSMOS)


def point_rows() -> Iterator[tuple[str, Case]]:
    yield from (("molmo", case) for case in point_table.MOLMO)
    yield from (("molmo2", case) for case in point_table.MOLMO2)
    for name, table in (
        ("llava", point_table.LISTS),
        ("nvila", point_table.LISTS),
        ("moondream", point_table.MOONDREAM),
    ):
        yield from ((name, spelled(case, fraction)) for case in table)
    yield from (("yi_vl", spelled(case, of_999)) for case in point_table.LISTS)


def rows() -> Iterator[tuple[str, Case]]:
    for name, (key, number, y_first) in JSON.items():
        for case in json_table.CASES:
            yield name, spelled(case, number, y_first=y_first, words={"§K": key})


ROWS = [*rows(), *tag_rows(), *token_rows(), *point_rows()]


@pytest.mark.parametrize(("format", "case"), ROWS, ids=[f"{f}: {c.name}" for f, c in ROWS])
def test_table(format: str, case: Case) -> None:
    check(parse(case.text, format, frames=FRAMES, asked=case.asked), case)


def check(found: Grounding, case: Case, tolerance: float = 1.5) -> None:
    assert found.grounding == case.status, (case.text, found)
    assert [phrase.phrase for phrase in found.grounded_phrases] == [label for label, _ in case.found]
    for phrase, (_, numbers) in zip(found.grounded_phrases, case.found, strict=True):
        expected = numbers if len(numbers) == 4 else (*numbers, *numbers)
        assert [v * 1000 for v in phrase.bbox] == pytest.approx(expected, abs=tolerance)
        assert (phrase.point is not None) == (len(numbers) == 2)
    if case.caption is not None:
        caption = case.caption if "§" not in case.caption else case.text
        assert found.caption == caption
    assert case.note in " ".join(found.notes)


def test_every_format_has_25_texts() -> None:
    for name in FORMATS:
        assert sum(row[0] == name for row in ROWS) >= 25, name


@pytest.mark.parametrize(
    ("text", "none"),
    [
        ("None.", True),
        ("no", True),
        ("N/A", True),
        ("Not found", True),
        ("No cats were detected in this picture.", True),
        ("There aren’t any cats here.", True),
        ("There are no red cars in the scene", True),
        ("The image does not contain a dog.", True),
        ("I couldn't find any dogs.", True),
        ("The dog is not visible.", True),
        ("I cannot see the image.", False),
        ("I can't see any images here, please send one.", False),
        ("No, the cat is shown on the left.", False),
        ("There is no doubt: the cat sits on the left.", False),
        ("There is no other cat; this one is at 10, 20, 30, 40.", False),
        ("The red car is on the left.", False),
        ("Nothing to see here? " + "The cat sleeps. " * 30, False),
        ("", False),
    ],
)
def test_what_says_none(text: str, none: bool) -> None:
    assert says_none(text) == none


def test_unknown_format_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="qwen2_5_vl"):
        parse("", "qwen2_5vl", frames=FRAMES, asked=True)


def test_text_must_be_text() -> None:
    with pytest.raises(OptionError, match="bytes"):
        parse(b"[]", None, frames=FRAMES, asked=True)  # type: ignore[arg-type]


def test_without_an_image() -> None:
    """Text alone, as from a chat without images: relative boxes can be placed, pixels cannot."""
    text = '[{"bbox_2d": [100, 200, 300, 400], "label": "cat"}]'
    assert parse(text, "qwen3_vl", frames=(), asked=True).grounding == "found"
    assert parse(text, "qwen2_5_vl", frames=(), asked=True).grounding == "unparsed"


def test_a_box_lies_in_its_own_image() -> None:
    found = parse('<points coords="2 1 500 500">cup</points>', "molmo2", frames=FRAMES, asked=True)
    assert found.grounded_phrases[0].image_index == 1


def test_padding_is_taken_off() -> None:
    padded = Frame((100, 50), (1000, 1000), (0.0, 250.0, 1000.0, 750.0))
    found = parse("[0.1, 0.25, 0.5, 0.75]", "llava", frames=[padded], asked=True)
    assert found.grounded_phrases[0].bbox == pytest.approx((0.1, 0.0, 0.5, 1.0))


def test_thinking_is_split_off() -> None:
    found = parse("<think>It is red.</think>\nRed.", "qwen3_vl", frames=FRAMES, asked=False)
    assert (found.thinking, found.caption, found.grounding) == ("It is red.", "Red.", None)


def test_confidence_is_kept() -> None:
    text = '[{"bbox_2d": [1, 2, 3, 4], "label": "a", "score": 0.75}, {"bbox_2d": [5, 6, 7, 8], "score": 99}]'
    found = parse(text, "qwen3_vl", frames=FRAMES, asked=True)
    assert [phrase.confidence for phrase in found.grounded_phrases] == [0.75, None]


def test_a_runaway_answer_is_cut() -> None:
    text = ", ".join(f'{{"bbox_2d": [{i % 997}, {i // 997}, 999, 999]}}' for i in range(MAX_BOXES + 500))
    found = parse(f"[{text}]", "qwen3_vl", frames=FRAMES, asked=True)
    assert len(found.grounded_phrases) == MAX_BOXES
    assert "runaway" in " ".join(found.notes)


def test_internvl_without_its_special_tokens() -> None:
    """Decoded without special tokens (OpenGVLab/InternVL issue 953)."""
    text = "car[[75, 658, 250, 871], [286, 558, 444, 711]]\ntruck[[440, 208, 502, 255]]"
    found = parse(text, "internvl", frames=FRAMES, asked=True)
    assert [phrase.phrase for phrase in found.grounded_phrases] == ["car", "car", "truck"]
