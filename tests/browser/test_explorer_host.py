"""The Explorer's acceptance list, "Host": themes, sizes, windowing, two views, restart, saved notebooks."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from .explorer_page import CONTRAST, SMALL_TARGETS, ExplorerPage
from .jupyter_server import NotebookPage

pytestmark = pytest.mark.browser

ON_TOP = """node => {
  const box = node.getBoundingClientRect();
  const inset = 6;  // corners are round
  const corners = [[box.left + inset, box.top + inset], [box.right - inset, box.bottom - inset]];
  return corners.every(([x, y]) => node.contains(document.elementFromPoint(x, y)));
}"""
CUT_OFF = """() => {
  const frame = document.querySelector(".vlmx").getBoundingClientRect();
  return [...document.querySelectorAll(".vlmx :is(button, input, select, textarea, label)")]
    .filter(node => node.getClientRects().length && !node.matches("input[type=radio]"))
    .map(node => [node.getBoundingClientRect(), node.textContent || node.className])
    .filter(([box]) => box.left < frame.left || box.right > frame.right)
    .map(([, name]) => name);
}"""


def asked(notebook: NotebookPage, show: str = "vlm_nb.explore([scene(0), scene(1)])") -> ExplorerPage:
    x = ExplorerPage.start(notebook, show)
    x.wait_image()
    x.ask("", "Find")
    return x


def test_32_themes_change_without_a_rerun_and_stay_readable(
    notebook: NotebookPage, screenshots: Path
) -> None:
    x = asked(notebook)
    for theme in ("JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast"):
        notebook.theme(theme)
        x.page.wait_for_timeout(400)
        assert x.page.evaluate(CONTRAST) == [], theme
        assert x.root.locator(".vlmx-edge").count() == 2
        name = f"explorer-{notebook.server.app}-{theme.split(' ', 1)[1].lower().replace(' ', '-')}.png"
        x.shoot(screenshots / name)


def test_33_a_narrow_cell_is_one_column_with_large_targets(notebook: NotebookPage, screenshots: Path) -> None:
    x = asked(notebook)
    x.root.evaluate("node => { node.style.width = '320px'; }")
    x.page.wait_for_timeout(300)
    stage, boxes = x.stage.bounding_box(), x.boxes.bounding_box()
    assert boxes["y"] > stage["y"] + stage["height"]
    assert x.root.evaluate("node => node.scrollWidth <= node.clientWidth")
    assert x.page.evaluate(SMALL_TARGETS) == []
    x.shoot(screenshots / f"explorer-{notebook.server.app}-narrow.png")


def test_33_four_hundred_percent_zoom(browser: Any, server: Any, screenshots: Path) -> None:
    # What the browser's zoom makes of a screen of 1280 × 1024: 320 × 256 CSS pixels of 4 device pixels each.
    context = browser.new_context(viewport={"width": 320, "height": 256}, device_scale_factor=4)
    notebook = NotebookPage.open(context.new_page(), server)
    try:
        x = ExplorerPage.start(notebook, "vlm_nb.explore([scene(0), scene(1)])")
        x.wait_image()
        x.ask("", "Find")
        stage, boxes = x.stage.bounding_box(), x.boxes.bounding_box()
        assert boxes["y"] > stage["y"] + stage["height"]
        assert x.root.evaluate("node => node.scrollWidth <= node.clientWidth")
        assert x.page.evaluate(SMALL_TARGETS) == []
        assert x.page.evaluate(CUT_OFF) == []
        x.drag((0.3, 0.3), (0.6, 0.6))
        assert "Region 30%, 30% to 60%, 60%" in x.root.locator(".vlmx-chip").inner_text()
        x.shoot(screenshots / f"explorer-{server.app}-zoom400.png")
    finally:
        notebook.close()
        context.close()


def test_34_forced_colours_and_reduced_motion(notebook: NotebookPage) -> None:
    x = asked(notebook)
    x.page.emulate_media(forced_colors="active", reduced_motion="reduce")
    x.page.wait_for_timeout(200)
    assert x.root.locator(".vlmx-edge").last.evaluate("n => getComputedStyle(n).stroke") == "rgb(230, 159, 0)"
    assert x.root.locator(".vlmx-box").first.evaluate("n => getComputedStyle(n).transitionDuration") == "0s"
    assert x.button("Send").evaluate("n => getComputedStyle(n).borderTopStyle") == "solid"
    x.page.emulate_media(forced_colors="none", reduced_motion="no-preference")


def test_35_drags_are_right_in_a_scrolled_output(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook)
    x.wait_image()
    notebook.evaluate("book.activeCellIndex = 1;")
    notebook.command("notebook:enable-output-scrolling")
    x.page.wait_for_timeout(300)
    x.stage.scroll_into_view_if_needed()
    x.drag((0.3, 0.3), (0.6, 0.6))
    assert "Region 30%, 30% to 60%, 60%" in x.root.locator(".vlmx-chip").inner_text()


def test_35_menus_are_not_clipped_in_a_scrolled_output(notebook: NotebookPage) -> None:
    x = asked(notebook)
    notebook.evaluate("book.activeCellIndex = 1;")
    notebook.command("notebook:enable-output-scrolling")
    x.page.wait_for_timeout(300)
    x.button("History").click()
    entry = x.root.get_by_role("button", name="1. Find every object")
    entry.scroll_into_view_if_needed()
    assert entry.evaluate(ON_TOP)
    entry.click()
    x.button("Export").click()
    last = x.button("HTML page")
    last.scroll_into_view_if_needed()
    assert last.evaluate(ON_TOP)
    with x.page.expect_download() as download:
        last.click()
    assert download.value.suggested_filename == "answers.html"


@pytest.mark.parametrize("mode", ["contentVisibility", "full", "defer"])
def test_36_scrolled_away_and_back(notebook: NotebookPage, mode: str) -> None:
    notebook.evaluate("book.notebookConfig = {...book.notebookConfig, windowingMode: arg};", mode)
    x = asked(notebook)
    x.root.get_by_role("button", name="Zoom in").click()
    x.root.get_by_role("button", name="Zoom in").click()
    text, rect = x.text.inner_text(), x.image_rect()
    notebook.evaluate(
        "const cells = Array.from({length: 40}, () => ({cell_type: 'code', source: '# far\\n'.repeat(20)}));"
        "book.model.sharedModel.insertCells(2, cells);"
    )
    for place in (41, 1):
        notebook.evaluate("book.activeCellIndex = arg; await book.scrollToItem(arg, 'smart');", place)
        x.page.wait_for_timeout(700)
    x.stage.scroll_into_view_if_needed()
    assert x.text.inner_text() == text
    assert x.image_rect() == pytest.approx(rect, abs=1.5)
    assert x.root.locator(".vlmx-picture").first.evaluate("n => n.naturalWidth") > 0


def test_37_two_views_share_edits_but_not_the_zoom(notebook: NotebookPage) -> None:
    x = asked(notebook)
    notebook.evaluate("book.model.sharedModel.cells[2].setSource('x');")
    notebook.run(2)
    second = x.page.locator(".vlmx").nth(1)
    second.get_by_role("listbox").get_by_role("option").nth(1).wait_for()
    second.get_by_role("button", name="Zoom in").click()
    x.page.wait_for_timeout(200)
    widths = """() => [...document.querySelectorAll(".vlmx-picture:not(.vlmx-sharp)")]
      .map(n => n.offsetWidth / n.closest(".vlmx-stage").offsetWidth)"""
    one, two = x.page.evaluate(widths)
    assert two > one * 1.3
    second.get_by_role("listbox").focus()
    x.page.keyboard.press("Delete")
    x.page.wait_for_function("() => document.querySelectorAll('.vlmx [role=option]').length === 2")
    notebook.evaluate("book.activeCellIndex = 2;")
    notebook.command("notebook:clear-cell-output")
    x.page.wait_for_function("() => document.querySelectorAll('.vlmx').length === 1")
    x.ask("What colour?")
    assert not notebook.console_errors


def test_38_a_restart_is_said_and_rerunning_works(notebook: NotebookPage) -> None:
    x = asked(notebook)
    x.ask("What colour?")
    start = time.perf_counter()
    notebook.evaluate("panel.sessionContext.session.kernel.restart();")
    x.root.get_by_text("Disconnected from the kernel").wait_for(timeout=5000)
    print(f"said after {time.perf_counter() - start:.2f} s")
    assert "red" in x.text.inner_text()
    assert x.image_rect()["w"] > 0
    notebook.wait_ready()
    again = ExplorerPage.start(notebook)
    again.wait_image()
    again.ask("What colour?")


def test_39_a_saved_notebook_shows_the_last_answer_without_a_kernel(
    notebook: NotebookPage, screenshots: Path
) -> None:
    x = asked(notebook)
    assert not x.page.locator(".vlmx-static").is_visible()
    x.page.wait_for_timeout(500)
    saved = notebook.save()
    outputs = saved["cells"][1]["outputs"]
    html = "".join(outputs[-1]["data"]["text/html"])
    assert "data:image/jpeg;base64," in html
    assert "red circle" in html
    assert len(json.dumps(outputs)) <= 200_000
    nbconvert = pytest.importorskip("nbconvert")
    import nbformat

    page, _ = nbconvert.HTMLExporter().from_notebook_node(nbformat.from_dict(plain(saved)))
    assert "red circle" in page
    assert "data:image/jpeg;base64," in page
    bare = plain(saved)
    bare["cells"][1]["outputs"] = []
    without, _ = nbconvert.HTMLExporter().from_notebook_node(nbformat.from_dict(bare))
    assert len(page) - len(without) <= 200_000
    (notebook.server.root / "reopened.ipynb").write_text(json.dumps(saved), encoding="utf-8")
    x.page.goto(notebook.server.url("reopened.ipynb"))
    notebook.wait_ready()
    x.page.locator(".vlmx-static img").wait_for()
    lost = x.page.get_by_text("Error displaying widget")
    lost.wait_for(state="attached")
    assert not lost.is_visible()
    x.page.locator(".jp-Cell").nth(1).screenshot(
        path=screenshots / f"explorer-{notebook.server.app}-reopened.png"
    )


def plain(saved: dict[str, Any]) -> dict[str, Any]:
    """The notebook with its multi-line strings joined, as nbformat has them in memory."""
    import nbformat

    return nbformat.reads(json.dumps(saved), as_version=4)


def test_40_history_exports_and_silence(notebook: NotebookPage, tmp_path: Path) -> None:
    x = asked(notebook)
    x.ask("What colour?")
    frame = x.python("print(x.results[['caption', 'grounding']].to_json(orient='records'))")
    assert [row["grounding"] for row in json.loads(frame)] == ["found", None]
    x.button("Export").click()
    with x.page.expect_download() as download:
        x.button("JSON lines").click()
    download.value.save_as(tmp_path / "answers.jsonl")
    rows = [
        json.loads(line) for line in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [row["prompt"] for row in rows][1] == "What colour?"
    assert [p["phrase"] for p in rows[0]["grounded_phrases"]] == ["red circle", "blue square"]
    x.button("History").click()
    x.root.get_by_role("button", name="1. Find every object").click()
    x.boxes.get_by_role("option").nth(1).wait_for()
    assert not notebook.console_errors
    assert not notebook.foreign_requests
