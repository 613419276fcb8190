"""Conversations: what travels with each turn, images that join later, undo, settings of a turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scripted import boxes_json, picture, scripted

from vlm_nb.errors import CapabilityError, GenerationError, OptionError, PromptError, SourceNotFound
from vlm_nb.model import VLM
from vlm_nb.request import ImageRef, Request

SEEN: list[Request] = []


@pytest.fixture
def model() -> Iterator[VLM]:
    SEEN.clear()

    def answer(request: Request) -> str:
        SEEN.append(request)
        if "fail" in request.messages[-1].text:
            raise ValueError("no")
        return f"answer {len(request.messages)}"

    vlm = scripted(answer)
    yield vlm
    vlm.unload()


def roles(request: Request) -> str:
    return " ".join(message.role[0] + str(len(message.parts)) for message in request.messages)


def test_the_history_goes_with_every_question(model: VLM) -> None:
    chat = model.chat(picture(), system="be brief")
    assert chat.ask("one").caption == "answer 2"
    assert chat.ask("two").caption == "answer 4"
    assert roles(SEEN[-1]) == "s1 u2 a1 u1"
    assert SEEN[-1].messages[2].text == "answer 2"
    assert len(SEEN[-1].images) == 1


def test_an_image_may_join_later(model: VLM) -> None:
    chat = model.chat(picture())
    chat.ask("one")
    chat.ask("and this?", picture(60, 60))
    assert SEEN[-1].messages[-1].parts == (ImageRef(1), "and this?")
    assert len(SEEN[-1].images) == len(chat.images) == 2
    chat.ask("three")
    assert roles(SEEN[-1]) == "u2 a1 u2 a1 u1"


def test_undo_takes_the_turn_and_its_images_back(model: VLM) -> None:
    chat = model.chat(picture())
    chat.ask("one")
    chat.ask("two", picture())
    assert chat.undo() == "two"
    assert len(chat.images) == 1
    assert chat.undo() == "one"
    chat.ask("again")
    assert roles(SEEN[-1]) == "u2"
    chat.undo()
    with pytest.raises(PromptError, match="no turn"):
        chat.undo()


def test_a_failed_turn_leaves_the_conversation_as_it_was(model: VLM) -> None:
    chat = model.chat(picture())
    with pytest.raises(GenerationError):
        chat.ask("fail")
    with pytest.raises(SourceNotFound):
        chat.ask("two", "no-such-file.png")
    assert chat.turns == []
    chat.ask("one")
    assert roles(SEEN[-1]) == "u2"


def test_settings_for_all_turns_and_for_one(model: VLM) -> None:
    chat = model.chat(picture(), max_new_tokens=5)
    chat.ask("one")
    chat.ask("two", temperature=0.5)
    assert [r.generation.max_new_tokens for r in SEEN] == [5, 5]
    assert [r.generation.sampling for r in SEEN] == [False, True]
    with pytest.raises(OptionError, match="max_new_tokens"):
        model.chat(picture(), max_token=5)


def test_boxes_know_their_image() -> None:
    model = scripted([boxes_json((0, 0, 56, 42)), "fine"])
    chat = model.chat(picture(112, 84))
    assert chat.ask("where").grounded_phrases[0].bbox == pytest.approx((0, 0, 0.5, 0.5))
    assert repr(chat) == "<Chat with 'scripted': 1 turns, 1 images>"
    model.unload()


def test_an_engine_without_conversations_says_so() -> None:
    model = scripted("x", capabilities={"chat": False})
    with pytest.raises(CapabilityError, match="single questions"):
        model.chat(picture())
    model.unload()
