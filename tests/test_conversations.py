"""Requests in other tools' forms: what they become, and what a wrong one says."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from scripted import picture, scripted

from vlm_nb import IMAGE_TOKEN
from vlm_nb.conversations import read
from vlm_nb.errors import PromptError, SourceNotFound
from vlm_nb.request import ImageRef, Message, Request

URI = "data:image/png;base64,AAAA"


def shape(given: Any) -> str:
    """Roles and parts: ``u:i0,t`` is a user message of an image and a text."""
    talk = read(given)
    rows = [*talk.history, talk.turn]
    return " ".join(
        row.role[0] + ":" + ",".join(f"i{p.index}" if isinstance(p, ImageRef) else "t" for p in row.parts)
        for row in rows
    )


OPENAI = [
    {"role": "system", "content": "be brief"},
    {
        "role": "user",
        "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": URI}}],
    },
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": [{"type": "image_url", "image_url": URI}, {"type": "text", "text": "c"}]},
]
TRANSFORMERS = [
    {"role": "user", "content": [{"type": "image", "path": "x.png"}, {"type": "text", "text": "a"}]}
]
OUMI = {
    "conversation_id": "1",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "image_path", "content": "x.png"},
                {"type": "image_binary", "content": base64.b64encode(b"x").decode()},
                {"type": "text", "content": "a"},
            ],
        }
    ],
}


@pytest.mark.parametrize(
    ("given", "expected", "images"),
    [
        ("hello", "u:t", 0),
        (("hello", "a.png"), "u:i0,t", 1),
        (("hello", ["a.png", "b.png"]), "u:i0,i1,t", 2),
        ((f"is {IMAGE_TOKEN} like {IMAGE_TOKEN}?", ["a.png", "b.png"]), "u:t,i0,t,i1,t", 2),
        (OPENAI, "s:t u:t,i0 a:t u:i1,t", 2),
        (TRANSFORMERS, "u:i0,t", 1),
        (OUMI, "u:i0,i1,t", 2),
    ],
    ids=["text", "pair", "images", "marks", "openai", "transformers", "oumi"],
)
def test_forms(given: Any, expected: str, images: int) -> None:
    assert shape(given) == expected
    assert len(read(given).images) == images


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (3, "is no request"),
        ([], "is no request"),
        ((f"{IMAGE_TOKEN} and {IMAGE_TOKEN}", "a.png"), "2 <image> marks for 1 images"),
        ([{"role": "robot", "content": "x"}], "robot.*allowed are system, user, assistant"),
        ([{"role": "user", "content": []}], "message 1 has no content"),
        ([{"role": "user"}], "message 1 has no content"),
        ([{"role": "user", "content": [{"type": "video"}]}], "message 1.*image_url"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "holds nothing"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "must be the user's"),
    ],
)
def test_a_wrong_request_says_where_and_what_is_allowed(given: Any, words: str) -> None:
    with pytest.raises(PromptError, match=words):
        read(given)


def test_generate_answers_each_and_keeps_errors_in_place(tmp_path: Path) -> None:
    seen: list[Request] = []

    def answer(request: Request) -> str:
        seen.append(request)
        return request.messages[-1].text.upper()

    model = scripted(answer)
    data = io.BytesIO()
    picture().save(data, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
    outcomes = model.generate(
        [
            ("one", picture()),
            ("two", [picture(), tmp_path / "none.png"]),
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": uri}}, "three"]}],
            {"role": "user"},
        ],
        max_new_tokens=4,
        show_progress=False,
    )
    assert [o.result.caption if o.result else type(o.error) for o in outcomes] == [
        "ONE",
        SourceNotFound,
        "THREE",
        PromptError,
    ]
    assert [request.generation.max_new_tokens for request in seen] == [4, 4]
    model.unload()


def test_the_mark_works_in_ask_and_counts() -> None:
    seen: list[Message] = []
    model = scripted(lambda request: seen.append(request.messages[-1]) or "x")
    model.ask([picture(), picture()], f"{IMAGE_TOKEN}old{IMAGE_TOKEN}new")
    assert seen[0].parts == (ImageRef(0), "old", ImageRef(1), "new")
    with pytest.raises(PromptError, match="1 <image> marks for 2"):
        model.ask([picture(), picture()], f"{IMAGE_TOKEN} x")
    model.unload()
