"""Families and formats from outside the package: one object and one call, and everything finds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

import vlm_nb
from vlm_nb import GroundedPhrase, families, grounding
from vlm_nb.errors import OptionError
from vlm_nb.families import Family, family_for, known_family
from vlm_nb.grounding import FORMATS, Format, Mark, Reading, Space, parse, write
from vlm_nb.results import Frame

FRAME = Frame((200, 100), (200, 100))
BOX = (0.25, 0.5, 0.75, 1.0)


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    tables = (families._KNOWN, FORMATS)
    before = [dict(table) for table in tables]
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)


def read_at(text: str, asked: bool) -> Reading:
    """``phrase @ x y x y``."""
    reading = Reading()
    for line in text.splitlines():
        phrase, at, numbers = line.partition(" @ ")
        if at:
            reading.add(Mark(phrase, tuple(float(word) for word in numbers.split())))
    return reading


def write_at(marks: Sequence[Mark]) -> str:
    return "\n".join(f"{mark.phrase} @ {' '.join(f'{v:g}' for v in mark.values)}" for mark in marks)


AT = Format(name="at", space=Space(scale=100), syntaxes=(read_at,), writer=write_at, source="this test")


def test_a_registered_format_is_read_and_written() -> None:
    assert grounding.register(AT) is AT
    text = write([GroundedPhrase("a dog", BOX)], "at", frames=[FRAME])
    assert text == "a dog @ 25 50 75 100"
    assert parse(text, "at", frames=[FRAME], asked=True).grounded_phrases[0].bbox == BOX


def test_a_registered_format_with_a_sign_is_guessed() -> None:
    import re

    grounding.register(replace(AT, sign=re.compile(r" @ \d")))
    found = parse("a dog @ 25 50 75 100", None, frames=[FRAME], asked=True)
    assert found.grounded_phrases[0].bbox == BOX
    assert "looks like the at format" in found.notes[0]


def test_a_family_needs_a_format_that_is_there() -> None:
    with pytest.raises(OptionError, match="unknown grounding format 'qwen25_vl'; did you mean qwen2_5_vl"):
        families.register(Family(name="mine", format="qwen25_vl"))
    assert "mine" not in families._KNOWN


def test_a_registered_family_is_found_by_type_by_name_and_by_its_own_name() -> None:
    mine = families.register(Family(name="mine", model_types=("mine_vl",), name_patterns=("mine-",)))
    assert mine in families.families()
    assert family_for("mine_vl") is mine
    assert family_for(None, "me/mine-7b") is mine
    assert known_family("mine") is mine


def test_a_shared_model_type_is_decided_by_the_name() -> None:
    mine = families.register(Family(name="mine", model_types=("qwen2_5_vl",), name_patterns=("mine-",)))
    assert family_for("qwen2_5_vl", "me/mine-7b") is mine
    assert family_for("qwen2_5_vl", "me/other").name == "qwen2_5_vl"


def test_the_same_name_again_replaces_in_its_place() -> None:
    names = [family.name for family in families.families()]
    changed = families.register(replace(known_family("qwen2_5_vl"), caption_prompt="Say it.", version=2))
    assert family_for("qwen2_5_vl") is changed
    assert [family.name for family in families.families()] == names


@pytest.mark.usefixtures("fresh_registry")
def test_load_asks_and_reads_as_the_registered_family_does() -> None:
    grounding.register(AT)
    families.register(Family(name="mine", format="at", locate_prompt="Point at {phrase}."))
    model = vlm_nb.load("any", engine="scripted", script={"Point at": "a dog @ 25 50 75 100"}, family="mine")
    from PIL import Image

    found = model.ground(Image.new("RGB", (200, 100)), "a dog")
    assert found.prompt == "Point at a dog."
    assert [(phrase.phrase, phrase.bbox) for phrase in found.grounded_phrases] == [("a dog", BOX)]
