"""A run in a real kernel: the bar gives way to one line, and Stop returns what is finished."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from kernel import Kernel, kernel
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

__all__ = ["kernel"]
SETUP = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import pandas as pd
from PIL import Image
from scripted import picture, scripted
import vlm_nb
model = scripted("one two three", delay=0.01)
def table(count):
    cells = [Image.new("RGB", (28, 28), (i % 256, i // 256, 0)) for i in range(count)]
    return pd.DataFrame({{"image": pd.Series(cells, dtype=object)}})
"""
STOPPED = """
import os, signal, threading
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
out = table(20_000).vlm.caption(model=model)
done = int(out["caption"].notna().sum())
assert 0 < done < 20_000
assert out["caption_error"].iloc[-1].startswith("Cancelled: interrupted before this row")
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
outcomes = model(source=list(table(20_000)["image"]), user_prompt="q?")
assert len(outcomes) == 20_000
assert 0 < sum(o.error is None for o in outcomes) < 20_000
again = model(source=[picture()], user_prompt="q")
assert again[0].error is None
print("the rest of the cell ran")
"""
QUEUED = """
import os, signal, threading
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
out = table(20_000).vlm.ask("what?", model=model)
rest = True
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    cells = [SETUP, "out = table(30).vlm.caption(model=model)", STOPPED]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    notebook.cells[2].metadata["tags"] = ["raises-exception"]
    folder = str(tmp_path_factory.mktemp("notebook"))
    NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()
    return notebook


def texts(cell: nbformat.NotebookNode) -> str:
    return "".join(o.get("text", "") + str(o.get("data", {}).get("text/plain", "")) for o in cell.outputs)


def test_the_bar_leaves_one_line_in_its_place(ran: nbformat.NotebookNode) -> None:
    outputs = ran.cells[1].outputs
    assert len(outputs) == 1
    assert set(outputs[0].data) == {"text/plain"}, "no widget that a saved notebook cannot show"
    assert outputs[0].data["text/plain"].startswith("30 rows in ")


def test_stop_returns_what_is_finished_and_says_how_to_go_on(ran: nbformat.NotebookNode) -> None:
    said = texts(ran.cells[2])
    assert said.count("rows are answered. Run the cell again to go on from there") == 2, "table and list"
    assert len(re.findall(r" of 20,000 rows in .* rows/s; stopped\b", said)) == 2
    assert "failed" not in said
    assert "the rest of the cell ran" in said
    assert all(output.output_type != "error" for output in ran.cells[2].outputs)


def test_cells_queued_behind_a_stopped_one_do_not_run(kernel: Kernel) -> None:
    assert kernel.run(SETUP).status == "ok"
    assert kernel.run("1 / 0").status == "error"
    stopped, queued = kernel.send(QUEUED), kernel.send("ran = True")
    reply = kernel.collect(stopped)
    assert (reply.status, reply.answer["ename"]) == ("error", "KeyboardInterrupt")
    assert "of 20,000 rows are answered" in reply.answer["evalue"]
    assert reply.answer["traceback"] == [], "not that of the division"
    assert kernel.collect(queued).status == "aborted"
    after = kernel.run("print(rest, 0 < out['answer'].notna().sum() < 20_000, 'ran' in globals())")
    assert (after.status, after.text.strip()) == ("ok", "True True False")
    silent = kernel.collect(str(kernel.client.execute(QUEUED.replace("what", "who"), silent=True)))
    assert silent.status == "ok"
    assert kernel.run("1").status == "ok", "a silent cell's interrupt is no other cell's"
