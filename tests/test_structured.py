"""Constrained answers on the demo model, for real: every schema holds, whatever the model would have said."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest

from vlm_nb import accessor, demo
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.errors import CapabilityError, MissingDependency, SchemaError
from vlm_nb.model import VLM
from vlm_nb.opening import open_model

pytest.importorskip("xgrammar")
pydantic = pytest.importorskip("pydantic")


@pytest.fixture(scope="module")
def model() -> Iterator[VLM]:
    vlm = open_model(LoadSpec(model="demo"))
    yield vlm
    vlm.unload()


@pytest.fixture(scope="module")
def image() -> Path:
    return demo.sample_images()["shapes.png"]


class Thing(pydantic.BaseModel):
    colour: Literal["red", "blue", "green", "pink"]
    size: int = pydantic.Field(ge=0, le=99)


class Scene(pydantic.BaseModel):
    background: Literal["white", "grey", "black"]
    things: list[Thing] = pydantic.Field(max_length=2)


def test_a_nested_model_comes_back_typed(model: VLM, image: Path) -> None:
    prediction = model.extract(image, Scene, max_new_tokens=150)
    assert isinstance(prediction.parsed, Scene)
    assert json.loads(prediction.raw) == prediction.parsed.model_dump()
    assert prediction.grounding is None
    assert prediction.to_dict()["parsed"] == prediction.parsed.model_dump()


def test_choices_and_regex(model: VLM, image: Path) -> None:
    choices = ["seven cats", 'a "quoted" one', "größer"]
    assert model.extract(image, choices, "What is it?").parsed in choices
    assert re.fullmatch(r"[A-F]{2}-\d{3}", model.extract(image, re.compile(r"[A-F]{2}-\d{3}")).parsed)


def test_a_question_of_the_model_s_own_kind_keeps_its_answer(model: VLM, image: Path) -> None:
    free = model.ask(image, "How many objects are there?")
    held = model.extract(image, [str(n) for n in range(10)], "How many objects are there?")
    assert held.parsed == free.caption


def test_no_whitespace_loops_and_no_special_tokens(model: VLM, image: Path) -> None:
    wide = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 8}}, "required": ["a"]}
    raw = model.extract(image, wide).raw
    assert "\n" not in raw
    assert "<|" not in raw


def test_lists_may_be_empty(model: VLM, image: Path) -> None:
    assert model.extract(image, {"type": "array", "maxItems": 0}).parsed == []


def test_a_cut_answer_is_an_error_with_the_partial_text(model: VLM, image: Path) -> None:
    with pytest.raises(SchemaError, match="before it was complete") as caught:
        model.extract(image, Scene, max_new_tokens=3)
    assert "{" in str(caught.value)
    result, error = model(source=image, user_prompt="x", schema=Scene, max_new_tokens=3)
    assert result is None
    assert isinstance(error, SchemaError)


def test_a_batch_with_another_schema_in_each_row(model: VLM, image: Path) -> None:
    schemas: list[Any] = [Scene, ["yes", "no"], None, re.compile(r"\d{5}"), Thing]
    prompts = [f"question {n}" for n in range(len(schemas))]
    jobs = [
        model.job(image, prompt, schema=schema, max_new_tokens=120)
        for prompt, schema in zip(prompts, schemas, strict=True)
    ]
    alone = [model.run([job], show_progress=False)[0] for job in jobs]
    together = model.run(jobs, show_progress=False)
    kinds = [type(o.unwrap().parsed) for o in together]
    assert kinds == [Scene, str, type(None), str, Thing]
    assert [o.unwrap().raw for o in together][1] == alone[1].unwrap().raw


def test_streaming_gives_the_same_text(model: VLM, image: Path) -> None:
    pieces = list(model.stream(image, "what", schema=Thing, max_new_tokens=60))
    assert len(pieces) > 1
    assert Thing.model_validate_json("".join(pieces))


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "foo"}, "Unsupported type"),
        (
            {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}, "required": ["a"]},
            "does not define",
        ),
        (re.compile(r"(?=x)x"), "Lookahead"),
        (re.compile(r"(?<=x)y"), "Lookbehind"),
    ],
)
def test_a_schema_that_cannot_be_used_is_one_clear_line(
    model: VLM, image: Path, schema: Any, words: str
) -> None:
    with pytest.raises(SchemaError, match=words) as caught:
        model.extract(image, schema)
    assert "\n" not in str(caught.value)
    assert "cpp" not in str(caught.value)


def test_without_xgrammar_the_error_names_the_command(
    image: Path, monkeypatch: pytest.MonkeyPatch, model: VLM
) -> None:
    monkeypatch.setitem(sys.modules, "xgrammar", None)
    monkeypatch.setattr(model.engine._backend, "_grammars", None)
    with pytest.raises(MissingDependency, match='pip install "xgrammar>='):
        model.extract(image, ["a", "b"])


def test_an_engine_that_cannot_says_so_before_running(image: Path) -> None:
    from scripted import scripted

    plain = scripted("x", capabilities={"schema": False})
    with pytest.raises(CapabilityError, match="schema"):
        plain.extract(image, ["a", "b"])
    plain.unload()


def test_without_xgrammar_a_table_or_list_raises_once(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accessor.register()
    monkeypatch.setitem(sys.modules, "xgrammar", None)
    fresh = open_model(LoadSpec(model="demo"))
    frame = pd.DataFrame({"image": [str(image)] * 3 + [str(demo.sample_images()["wide.png"])]})
    with pytest.raises(MissingDependency, match='pip install "xgrammar>='):
        frame.vlm.extract(Thing, model=fresh, show_progress=False)
    with pytest.raises(MissingDependency, match='pip install "xgrammar>='):
        fresh(source=frame["image"].tolist(), user_prompt="?", schema=Thing, show_progress=False)
    assert fresh(source=[image], user_prompt="What is shown?", show_progress=False)[0].error is None
    fresh.unload()
