"""Schemas from every kind of description, typed answers, and hostile ones refused in one line."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Literal

import pytest
from typing_extensions import TypedDict

from vlm_nb.errors import SchemaError
from vlm_nb.schema import as_schema

pydantic = pytest.importorskip("pydantic")


class Thing(pydantic.BaseModel):
    colour: Literal["red", "blue"]
    count: int
    names: list[str] = pydantic.Field(default_factory=list)


@dataclasses.dataclass
class Plain:
    colour: str
    count: int


class Typed(TypedDict):
    colour: str
    count: int


TEXT = '{"colour": "red", "count": 2}'


def test_a_pydantic_model_gives_an_instance_and_columns() -> None:
    schema = as_schema(Thing)
    assert schema.parse(TEXT) == Thing(colour="red", count=2)
    assert schema.columns == ("colour", "count", "names")
    assert schema.constraint["json"]["title"] == "Thing"


def test_dataclass_typed_dict_and_json_schema() -> None:
    assert as_schema(Plain).parse(TEXT) == Plain("red", 2)
    assert as_schema(Typed).parse(TEXT) == {"colour": "red", "count": 2}
    given = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert as_schema(given).parse('{"n": 3}') == {"n": 3}


def test_literal_choices_regex_and_plain_types() -> None:
    assert as_schema(Literal["yes", "no"]).constraint == {"choices": ["yes", "no"]}
    assert as_schema(["yes", "no"]).parse(" yes\n") == "yes"
    assert as_schema(re.compile(r"\d{3}")).parse("123") == "123"
    assert as_schema(list[int]).parse("[]") == []


def test_a_cut_answer_is_an_error_with_the_text() -> None:
    with pytest.raises(SchemaError, match=r"before it was complete.*colour"):
        as_schema(Thing).parse('{"colour": "red", "cou')


@pytest.mark.parametrize("text", ['{"colour": "green", "count": 2}', '{"count": 2}', "hello", ""])
def test_an_answer_that_does_not_fit_is_an_error(text: str) -> None:
    with pytest.raises(SchemaError, match="Thing"):
        as_schema(Thing).parse(text)


ENDLESS = {
    "$defs": {"N": {"properties": {"n": {"$ref": "#/$defs/N"}}, "required": ["n"]}},
    "$ref": "#/$defs/N",
}
DEEP: dict[str, Any] = {"type": "integer"}
for _ in range(3000):
    DEEP = {"allOf": [DEEP]}

BRANCHING: dict[str, Any] = {
    "$defs": {
        f"L{i}": {
            "properties": {"a": {"$ref": f"#/$defs/L{i + 1}"}, "b": {"$ref": f"#/$defs/L{i + 1}"}},
            "required": ["a", "b"],
        }
        for i in range(40)
    }
    | {"L40": {"type": "integer"}},
    "$ref": "#/$defs/L0",
}

HOSTILE = {
    "branching": BRANCHING,
    "empty": {},
    "false below": {"properties": {"a": False}, "required": ["a"]},
    "empty enum": {"enum": []},
    "empty range": {"type": "integer", "minimum": 3, "maximum": 2},
    "endless": ENDLESS,
    "reference to itself": {"$ref": "#"},
    "reference to nothing": {"$ref": "#/$defs/X"},
    "reference outside": {"$ref": "http://127.0.0.1/x.json"},
    "enormous": {"enum": ["x" * 100] * 3000},
    "deep": DEEP,
    "not JSON": {"enum": [object()]},
    "no choices": [],
    "numbers as choices": [1, 2],
    "a text": "red",
    "nothing": None,
}


@pytest.mark.parametrize("given", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_schemas_are_refused_in_one_line(given: Any) -> None:
    with pytest.raises(SchemaError) as caught:
        as_schema(given)
    assert len(str(caught.value).splitlines()) == 1


def test_a_tree_that_may_end_is_fine() -> None:
    tree = {
        "$defs": {
            "T": {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/T"}}}}
        },
        "$ref": "#/$defs/T",
    }
    assert as_schema(tree).parse('{"kids": [{"kids": []}]}') == {"kids": [{"kids": []}]}
    assert as_schema(tree).columns == ("kids",)
