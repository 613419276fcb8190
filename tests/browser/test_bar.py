"""The progress of many rows in a real front end: short runs and long ones leave a line and log no errors."""

from __future__ import annotations

import pytest

from .jupyter_server import NotebookPage

pytestmark = pytest.mark.browser
SETUP = """
import vlm_nb
from PIL import Image
model = vlm_nb.load("scripted", engine="scripted", script="one two three", engine_args={"delay": 0.01})
def ask(count, prompt):
    images = [Image.new("RGB", (28, 28), (i % 256, i // 256, 0)) for i in range(count)]
    return model(source=images, user_prompt=prompt, show_progress=True)
"""


def test_short_and_long_runs_leave_a_line_and_no_errors(notebook: NotebookPage) -> None:
    notebook.set_cells([SETUP, *(f"_ = ask(4, 'short {i}')" for i in range(6)), "_ = ask(900, 'long')"])
    notebook.run(0)
    for cell in range(1, 7):
        notebook.run(cell)
        assert notebook.output(cell).inner_text().startswith("4 rows in ")
    notebook.run(7, wait=False)
    notebook.output(7).get_by_text("/900").wait_for()
    notebook.output(7).get_by_text("900 rows in ").wait_for()
    assert not notebook.console_errors
