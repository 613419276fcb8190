"""The engine's helpers in a real kernel: an interrupt ends the wait, keeps what there is, harms nothing."""

from __future__ import annotations

import time
from pathlib import Path

from kernel import Kernel, kernel

__all__ = ["kernel"]
SETUP = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from engine_helpers import ignore, text
import threading
from vlm_nb.engines.base import Engine, generate, stream
from vlm_nb.engines.scripted import ScriptedBackend
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.request import Completion
spec = LoadSpec(model="x", script="word " * 3000, engine_args={{"delay": 0.01, "slots": 2}})
engine = Engine(ScriptedBackend(spec), "scripted")
"""
STREAM = """
seen = []
try:
    for event in stream(engine, text(max_new_tokens=3000)):
        if len(seen) == 3:
            print("talking", flush=True)
        seen.append(event)
except KeyboardInterrupt:
    last = seen[-1]
    print("interrupted", isinstance(last, Completion), last.usage.finish_reason, bool(last.text), flush=True)
"""
MANY = """
got = {}
try:
    requests = (text("quick", max_new_tokens=2 if n == 0 else 3000) for n in range(50))
    for index, completion in generate(engine, requests):
        got[index] = completion.usage.finish_reason
        print("talking", flush=True)
except KeyboardInterrupt:
    print("interrupted", got[0], sorted(set(got.values())), len(got) < 10, flush=True)
"""


def interrupted(kernel: Kernel, code: str) -> tuple[str, float]:
    """Run a cell, interrupt it once it talks; what it printed, and how long the interrupt took."""
    cell, printed, at = kernel.send(code), "", 0.0
    for message in kernel.messages(cell, 60):
        if message["msg_type"] == "stream":
            printed += message["content"]["text"]
            if not at and "talking" in printed:
                time.sleep(0.3)
                at = time.monotonic()
                kernel.manager.interrupt_kernel()
    return printed, time.monotonic() - at


def test_an_interrupt_keeps_the_partial_answer_and_the_engine_goes_on(kernel: Kernel) -> None:
    assert kernel.run(SETUP).status == "ok"
    printed, seconds = interrupted(kernel, STREAM)
    assert "interrupted True cancelled True" in printed
    assert seconds < 10
    printed, seconds = interrupted(kernel, MANY)
    assert "interrupted length ['cancelled', 'length'] True" in printed
    assert seconds < 10
    reply = kernel.run("print(engine.submit(text(max_new_tokens=2)).result(10).text)")
    assert reply.text.strip() == "word word"
    assert kernel.run("print(engine.close())").text.strip() == "True"
