"""Closing the Explorer: threads end, callbacks, images and (if it loaded it) the model are let go."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import comm
import pytest
from explorer_helpers import DummyComm, ask, picture, reply, say, until

import vlm_nb
from vlm_nb import sources
from vlm_nb.explorer import Explorer, explore


@pytest.fixture(autouse=True)
def dummy_comm(monkeypatch: pytest.MonkeyPatch, fresh_registry: None) -> None:
    monkeypatch.setattr(comm, "create_comm", DummyComm)


def started(before: set[threading.Thread]) -> list[str]:
    """The names of the threads that there are now and were not before."""
    return sorted(thread.name for thread in set(threading.enumerate()) - before)


def used(**options: Any) -> Explorer:
    """A widget that has looked, asked, found and edited."""
    x = explore([picture("red"), picture("blue")], **options)
    say(x, "hello")
    say(x, "server", server="http://127.0.0.1:9/v1")
    ask(x, "what?")
    ask(x, "thing", "ground")
    say(x, "edit", op="change", id=1, bbox=[0.1, 0.1, 0.5, 0.5])
    say(x, "go", index=1)
    until(lambda: x.ui_picture.get("index") == 1)
    return x


def gone(*references: weakref.ref[Any]) -> bool:
    gc.collect()
    return not [reference for reference in references if reference() is not None]


def test_every_thread_ends() -> None:
    before = set(threading.enumerate())
    x = explore([picture()], engine="scripted", script=reply)
    say(x, "load", model="toy")
    until(lambda: x.ui_models["current"])
    ask(x)
    say(x, "server", server="http://127.0.0.1:9/v1")
    parts = [f"vlm_nb-explorer-{part}" for part in ("images", "models", "pump", "servers")]
    until(lambda: {*parts, "vlm_nb-scripted"} <= set(started(before)))  # and one that asks the server
    x.close()
    until(lambda: not started(before))


def test_threads_end_while_an_answer_is_open() -> None:
    before = set(threading.enumerate())
    x = explore([picture()], engine="scripted", script=reply, engine_args={"delay": 0.2})
    say(x, "load", model="toy")
    until(lambda: x.ui_models["current"])
    say(x, "ask", task="ask", prompt="slowly")
    until(lambda: x.ui_answer["text"])
    x.close()
    until(lambda: not started(before))
    assert vlm_nb.loaded() == []


def test_the_widget_its_parts_and_its_images_are_let_go() -> None:
    vlm_nb.load("other", engine="scripted", script=reply)
    x = used()
    decoded = weakref.ref(x._album.image(1).image)
    parts = [weakref.ref(part) for part in (x, x._album, x._models, x._desk, x._keepsake)]
    x.close()
    assert x._album.items == []
    del x
    until(lambda: gone(decoded, *parts))
    assert [model.name for model in vlm_nb.loaded()] == ["other"]


def test_images_are_let_go_even_while_the_closed_widget_is_kept() -> None:
    vlm_nb.load("other", engine="scripted", script=reply)
    given = picture("green")
    x = explore([given])
    ask(x)
    mine, decoded = weakref.ref(given), weakref.ref(x._album.image(0).image)
    x.close()
    del given
    until(lambda: gone(mine, decoded))
    assert len(x.predictions) == 1, "what was answered stays"


def test_the_model_that_it_loaded_is_unloaded_and_let_go() -> None:
    x = explore([picture()], engine="scripted", script=reply)
    say(x, "load", model="toy")
    until(lambda: x.ui_models["current"])
    ask(x)
    model = weakref.ref(vlm_nb.current())
    x.close()
    assert vlm_nb.loaded() == []
    until(lambda: gone(model))
    assert x.prediction is not None


def test_callbacks_do_nothing_after_closing() -> None:
    vlm_nb.load("other", engine="scripted", script=reply)
    x = used()
    x.close()
    sent = len(x.comm.sent) if x.comm else 0
    for kind, content in (
        ("hello", {}), ("ask", {"task": "ask", "prompt": "after"}), ("go", {"index": 0}), ("stop", {}),
        ("load", {"model": "toy"}), ("edit", {"op": "undo"}), ("thumbs", {"indices": [0]}),
    ):  # fmt: skip
        say(x, kind, **content)
    assert (len(x.comm.sent) if x.comm else 0) == sent
    assert [model.name for model in vlm_nb.loaded()] == ["other"]


def test_a_source_of_an_upload_is_let_go_too() -> None:
    vlm_nb.load("other", engine="scripted", script=reply)
    x = explore()
    stream = sources.Source("mine", "image", picture())
    x.add(stream.payload)
    held = weakref.ref(stream.payload)
    del stream
    x.close()
    until(lambda: gone(held))
