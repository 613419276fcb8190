"""The Explorer without a browser: a comm that writes down what is sent, and what tests say to the widget."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from PIL import Image

from vlm_nb.explorer import Explorer

SIZE = (200, 100)


class DummyComm:
    """What a widget needs of a comm; keeps the messages."""

    comm_id = "dummy"
    kernel = "there"

    def __init__(self, **_: Any) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, data: Any = None, metadata: Any = None, buffers: Any = None) -> None:
        self.sent.append({**(data or {}), "buffers": buffers})

    def on_msg(self, callback: Any) -> None: ...
    def on_close(self, callback: Any) -> None: ...
    def open(self, *a: Any, **k: Any) -> None: ...
    def close(self, *a: Any, **k: Any) -> None: ...


def reply(request: Any) -> Any:
    text = request.messages[-1].text
    if "broken" in text:
        return RuntimeError("boom")
    if "nothing" in text:
        return "```json\n[]\n```"
    if "Locate" in text:
        w, h = request.input_sizes[0]
        row = {"bbox_2d": [w // 4, h // 4, w // 2, h // 2], "label": "thing"}
        return f"```json\n{json.dumps([row])}\n```"
    return "one two three four five six seven eight nine ten"


def picture(colour: str = "red", size: tuple[int, int] = SIZE) -> Image.Image:
    return Image.new("RGB", size, colour)


def say(x: Explorer, kind: str, buffers: list[Any] | None = None, **content: Any) -> None:
    x._on_message(x, {"type": kind, **content}, buffers or [])


def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def ask(x: Explorer, prompt: str = "what?", task: str = "ask", **more: Any) -> None:
    say(x, "ask", task=task, prompt=prompt, **more)
    until(lambda: x.ui_answer["status"] not in ("idle", "waiting", "running"))


def messages(x: Explorer, kind: str) -> list[dict[str, Any]]:
    found = [m for m in x.comm.sent if m.get("method") == "custom" and m["content"]["type"] == kind]
    return [{**m["content"], "buffers": m["buffers"]} for m in found]
