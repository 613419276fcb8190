"""The bar in a real kernel: a widget for runs that last, a line before it and after it."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel import Kernel, Reply, kernel

__all__ = ["kernel"]
SETUP = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from PIL import Image
from scripted import scripted
model = scripted("one two three", delay=0.01)
def images(count):
    return [Image.new("RGB", (28, 28), (i % 256, i // 256, 0)) for i in range(count)]
"""
WIDGET = "application/vnd.jupyter.widget-view+json"


def shown(reply: Reply) -> list[set[str]]:
    """The kinds of each state of the output."""
    kinds = ("display_data", "update_display_data")
    return [set(m["content"]["data"]) for m in reply.messages if m["msg_type"] in kinds]


@pytest.fixture(scope="module")
def ready(kernel: Kernel) -> Kernel:
    assert kernel.run(SETUP).status == "ok"
    return kernel


def test_a_run_that_is_soon_done_shows_no_widget(ready: Kernel) -> None:
    reply = ready.run("_ = model(source=images(8), user_prompt='a', show_progress=True)")
    assert shown(reply) == [{"text/plain"}, {"text/plain"}]
    assert reply.updates[-1].startswith("8 rows in ")


def test_a_longer_run_shows_a_widget_and_leaves_a_line(ready: Kernel) -> None:
    reply = ready.run("_ = model(source=images(900), user_prompt='b', show_progress=True)")
    states = shown(reply)
    assert reply.contents("display_data")[0]["data"]["text/plain"] == "900 rows …"
    assert [WIDGET in state for state in states] == [False, True, False]
    assert reply.updates[-1].startswith("900 rows in ")
