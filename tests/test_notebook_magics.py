"""The magics in a real kernel: streaming into one output, shown once, interrupted, beside other threads."""

from __future__ import annotations

import re
import time

import pytest
from kernel import Kernel, kernel

__all__ = ["kernel"]
WORDS = 40
SLOW = f"""
def script(request):
    return " ".join(f"word{{i}}" for i in range({WORDS}))
model = vlm_nb.load("slow", engine="scripted", script=script, engine_args={{"delay": 0.05}})
"""


@pytest.fixture(scope="module", autouse=True)
def slow(kernel: Kernel) -> None:
    """A model that answers forty words in two seconds."""
    assert kernel.run(SLOW).status == "ok"


def test_an_answer_grows_in_one_output(kernel: Kernel) -> None:
    reply = kernel.run("%vqa a.png What is it?")
    assert reply.status == "ok"
    assert len(reply.contents("display_data")) == 1
    counts = [text.count("word") for text in reply.updates]
    assert len(counts) > 5
    assert counts == sorted(counts)
    assert counts[-1] == WORDS


def test_the_value_is_not_shown_again(kernel: Kernel) -> None:
    reply = kernel.run("%vqa a.png What is it?")
    assert reply.contents("execute_result") == []
    assert kernel.run("_.caption.count('word')").contents("execute_result")[0]["data"]["text/plain"] == "40"


def test_a_later_cell_shows_the_value(kernel: Kernel) -> None:
    kernel.run("%vqa -o kept a.png What is it?")
    shown = kernel.run("kept").contents("execute_result")
    assert len(shown) == 1
    assert "data:image/jpeg;base64," in shown[0]["data"]["text/html"]


def test_an_assignment_shows_the_answer_once(kernel: Kernel) -> None:
    reply = kernel.run("answer = %vqa a.png What is it?\nanswer")
    assert reply.contents("execute_result") == []
    assert len(reply.contents("display_data")) == 1


def test_the_displays_share_one_id(kernel: Kernel) -> None:
    reply = kernel.run("%vqa a.png What is it?")
    kinds = ("display_data", "update_display_data")
    ids = {content["transient"]["display_id"] for kind in kinds for content in reply.contents(kind)}
    assert len(ids) == 1


def test_several_questions_are_shown_one_by_one(kernel: Kernel) -> None:
    reply = kernel.run("%%vqa a.png\n- What is it?\n- And that?")
    assert len(reply.contents("display_data")) == 2
    assert reply.contents("execute_result") == []
    finals = [c for c in reply.contents("update_display_data") if "vlm-nb" in c["data"]["text/html"]]
    assert ["data:image" in final["data"]["text/html"] for final in finals] == [True, False]


def test_stream_off_shows_the_answer_at_once(kernel: Kernel) -> None:
    reply = kernel.run("%config VlmMagics.stream = False\n%vqa a.png What is it?")
    kernel.run("%config VlmMagics.stream = None")
    assert len(reply.updates) == 1


def interrupt_when_it_talks(kernel: Kernel, cell: str) -> float:
    """Interrupt the cell once its answer has begun; return the time."""
    for message in kernel.messages(cell, 60):
        if message["msg_type"] == "update_display_data":
            kernel.manager.interrupt_kernel()
            return time.monotonic()
    raise AssertionError("no answer")


def test_an_interrupt_keeps_the_partial_text(kernel: Kernel) -> None:
    cell = kernel.send("%vqa -o cut a.png What is it?")
    started = interrupt_when_it_talks(kernel, cell)
    reply = kernel.collect(cell)
    assert time.monotonic() - started < 1.5
    assert (reply.status, reply.answer["ename"]) == ("error", "KeyboardInterrupt")
    assert reply.contents("error") == [], "the answer says it"
    assert 1 <= reply.updates[-1].count("word") < WORDS
    assert "stopped" in reply.updates[-1]
    said = kernel.run("print(cut.usage.finish_reason, 0 < cut.caption.count('word') < 40)").text
    assert said.strip() == "cancelled True"


def test_cells_queued_behind_an_interrupted_answer_do_not_run(kernel: Kernel) -> None:
    cell, queued = kernel.send("%vqa a.png What is it?"), kernel.send("too_far = True")
    interrupt_when_it_talks(kernel, cell)
    assert kernel.collect(cell).status == "error"
    assert kernel.collect(queued).status == "aborted"
    assert kernel.run("print('too_far' in globals())").text.strip() == "False"


def test_after_an_interrupt_the_next_cell_works(kernel: Kernel) -> None:
    cell = kernel.send("%vqa a.png What is it?")
    interrupt_when_it_talks(kernel, cell)
    kernel.collect(cell)
    assert kernel.run("%vqa a.png And now?").updates[-1].count("word") == WORDS


def test_an_interrupt_of_several_questions_keeps_the_answers(kernel: Kernel) -> None:
    cell = kernel.send("%%vqa -o cut a.png\n- What is it?\n- And that?\n- And this?")
    interrupt_when_it_talks(kernel, cell)
    kernel.collect(cell)
    assert kernel.run("print(len(cut))").text.strip() == "1"


def test_a_thread_asks_while_a_magic_streams(kernel: Kernel) -> None:
    reply = kernel.run(
        "import threading\n"
        "found = []\n"
        "side = threading.Thread(target=lambda: found.append(model.ask('b.png', 'From a thread?')))\n"
        "side.start()\n"
        "%vqa a.png What is it?\n"
        "side.join()\n"
        "print(found[0].caption.count('word'))"
    )
    assert reply.text.strip() == "40"
    assert reply.updates[-1].count("word") == WORDS
    assert len(reply.contents("display_data")) == 1


def test_an_error_is_one_line(kernel: Kernel) -> None:
    folder = kernel.run("from pathlib import Path\nprint(Path.cwd())").text.strip()
    reply = kernel.run("%vqa missing.png What is it?")
    assert reply.status == "error"
    lines = reply.contents("error")[0]["traceback"]
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines] == [
        f"SourceNotFound: no file, folder or variable 'missing.png'. The working folder is {folder}. "
        "[docs/troubleshooting.md#sourcenotfound]"
    ]


def test_a_load_shows_progress_and_can_be_interrupted(kernel: Kernel) -> None:
    code = "%vlm load later --engine scripted --keep --engine_args {'load_seconds': 20}"
    cell = kernel.send(code)
    interrupt_when_it_talks(kernel, cell)
    reply = kernel.collect(cell)
    assert reply.contents("error")[0]["ename"] == "Cancelled"
    assert len(reply.contents("error")[0]["traceback"]) == 1
    assert kernel.run("print(vlm_nb.current().name, len(vlm_nb.loaded()))").text.strip() == "slow 1"


def test_a_load_leaves_one_line(kernel: Kernel) -> None:
    reply = kernel.run("%vlm load later --engine scripted --keep --engine_args {'load_seconds': 1}")
    assert len(reply.contents("display_data")) == 1
    assert any("<progress" in c["data"]["text/html"] for c in reply.contents("update_display_data"))
    last = reply.contents("update_display_data")[-1]["data"]
    assert last["text/plain"].startswith("later · cpu")
    assert "<progress" not in last["text/html"]
    kernel.run("%vlm unload later\n%vlm use slow")
