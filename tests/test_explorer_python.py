"""The Explorer asked from Python: what the browser would send, waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import comm
import pytest
from explorer_helpers import DummyComm, picture, reply, say, until

import vlm_nb
from vlm_nb.errors import Cancelled, GenerationError, OptionError
from vlm_nb.explorer import Explorer, explore


@pytest.fixture(autouse=True)
def dummy_comm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "create_comm", DummyComm)


@pytest.fixture
def model(fresh_registry: None) -> vlm_nb.VLM:
    return vlm_nb.load("scripted", engine="scripted", script=reply, engine_args={"delay": 0.005})


@pytest.fixture
def x(model: vlm_nb.VLM) -> Iterator[Explorer]:
    made = explore([picture("red"), picture("blue"), picture("green")])
    yield made
    made.close()


def test_ask_returns_the_answer_that_the_widget_shows(x: Explorer) -> None:
    answer = x.ask("what is it?", image=1)
    assert answer.caption.endswith("nine ten")
    assert (x.ui_answer["status"], x.ui_answer["image"], x.ui_answer["text"]) == ("done", 1, answer.caption)
    assert x.prediction is not None
    assert x.prediction.raw == answer.raw


def test_a_region_is_in_terms_of_the_whole_image(x: Explorer) -> None:
    (phrase,) = x.ask("thing", "ground", region=(0.5, 0.0, 1.0, 1.0)).grounded_phrases
    assert phrase.bbox == pytest.approx([0.5 + 0.5 / 4, 0.25, 0.75, 0.5], abs=0.02)


def test_the_models_error_is_raised_and_the_next_question_works(x: Explorer) -> None:
    with pytest.raises(GenerationError, match="boom"):
        x.ask("broken")
    assert x.ui_answer["status"] == "error"
    assert x.ask("again").caption


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "sing"}, "unknown task 'sing'; allowed are: ask, caption, ground"),
        ({"image": 3}, "image 3: there are 3, counted from 0"),
        ({"image": -1}, "image -1"),
    ],
)
def test_what_cannot_be_asked_is_refused(x: Explorer, given: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        x.ask("what?", **given)  # type: ignore[arg-type]
    assert x.predictions == []


def test_while_another_answer_is_open_it_is_refused(model: vlm_nb.VLM, x: Explorer) -> None:
    model.engine._backend._args["delay"] = 0.05  # type: ignore[attr-defined]
    say(x, "ask", task="ask", prompt="slowly")
    with pytest.raises(OptionError, match="another answer is open"):
        x.ask("what?")


def test_stop_gives_the_partial_answer_and_close_ends_the_wait(model: vlm_nb.VLM, x: Explorer) -> None:
    model.engine._backend._args["delay"] = 0.05  # type: ignore[attr-defined]
    answers: list[object] = []

    def asking() -> None:
        try:
            answers.append(x.ask("slowly").usage.finish_reason)
        except Cancelled as error:
            answers.append(error)

    for end in (lambda: say(x, "stop"), x.close):
        waiting = threading.Thread(target=asking)
        waiting.start()
        until(lambda: x.ui_answer["text"].startswith("one two"))
        end()
        waiting.join(10)
        assert not waiting.is_alive()
        time.sleep(0.05)
    assert answers[0] == "cancelled"
    assert len(answers) == 2


def test_its_repr_says_how_many_images(model: vlm_nb.VLM) -> None:
    x = explore([picture("red")])
    assert repr(x) == "<Explorer: 1 image>"
    x.close()
    assert repr(x) == "<Explorer: 0 images, closed>"
