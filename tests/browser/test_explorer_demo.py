"""The Explorer with the demo model, as a new user meets it: nothing loaded, a question, boxes."""

from __future__ import annotations

from pathlib import Path

import pytest

from .explorer_page import ExplorerPage
from .jupyter_server import NotebookPage

pytestmark = pytest.mark.browser

START = """
import vlm_nb
from vlm_nb.demo.scenes import draw_scene
images = [draw_scene(seed, min_objects=3).image for seed in range(12)]
"""
SECONDS = 120_000


def test_the_first_question_loads_the_demo_model_and_says_so(
    notebook: NotebookPage, screenshots: Path
) -> None:
    notebook.set_cells([START, "x = vlm_nb.explore(images)\nx"])
    notebook.run(0)
    notebook.run(1)
    x = ExplorerPage(notebook)
    x.wait_image()
    x.root.get_by_text("No model is loaded; the first question loads the small demo model.").wait_for()
    x.task("Find")
    x.button("Send").click()
    x.wait_status("Done", SECONDS)
    assert "demo model" in x.root.locator(".vlmx-facts").first.inner_text()
    x.root.get_by_text("demo: drawn scenes only").wait_for()
    count = x.boxes.get_by_role("option").count()
    assert count >= 1
    x.task("Caption")
    x.button("Send").click()
    x.page.wait_for_function(
        "() => document.querySelector('.vlmx-question').textContent.startsWith('Describe')"
    )
    x.wait_status("Done", SECONDS)
    assert x.text.inner_text()
    x.task("Find")
    x.button("Send").click()
    x.wait_status("Generating…")
    x.wait_status("Done", SECONDS)
    x.boxes.get_by_role("option").first.hover()
    x.shoot(screenshots / f"explorer-{notebook.server.app}-demo.png")
    assert x.python("print(vlm_nb.current().is_demo, len(x.results))") == "True 3"
    assert not notebook.console_errors
    assert not notebook.foreign_requests
