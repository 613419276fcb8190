"""The helper itself: cells run, outputs are read, the kernel is asked, in Lab and in Notebook 7."""

from __future__ import annotations

import pytest

from .jupyter_server import NotebookPage

pytestmark = pytest.mark.browser


def test_cells_run_and_outputs_are_read(notebook: NotebookPage) -> None:
    notebook.set_cells(["1 + 1", "print('x' * 3)"])
    notebook.run(0)
    notebook.run(1)
    assert notebook.outputs(0)[0]["data"]["text/plain"] == "2"
    assert "xxx" in notebook.output(1).inner_text()
    assert notebook.python("print(6 * 7)").strip() == "42"
    assert notebook.save()["cells"][0]["source"] in ("1 + 1", ["1 + 1"])
    assert not notebook.foreign_requests
    assert not notebook.console_errors
