"""The Explorer's acceptance list, "Load": order of the controls, names, keys, progress, errors."""

from __future__ import annotations

from typing import Any

import pytest

from .explorer_page import ExplorerPage
from .jupyter_server import NotebookPage

pytestmark = pytest.mark.browser

FOCUSED = """() => {
  const node = document.activeElement;
  const name = node.getAttribute("aria-label") || node.labels?.[0]?.textContent || node.textContent;
  const style = getComputedStyle(node.matches(".vlmx-tasks input") ? node.nextElementSibling : node);
  return {name: name.trim(), inside: !!node.closest(".vlmx"), outline: style.outlineStyle,
          width: style.outlineWidth, list: node.getAttribute("role") === "listbox"};
}"""
ORDER = [
    "Model",
    "Quantisation",
    "Device",
    "Load",
    "Images",
    "Image number",
    "image",
    "boxes",
    "Prompt",
    "Send",
    "Export",
]


def tab_names(x: ExplorerPage, key: str, first: Any) -> list[str]:
    first.focus()
    names = []
    for _ in range(len(ORDER) + 4):
        here = x.page.evaluate(FOCUSED)
        if not here["inside"]:
            break
        assert (here["outline"], here["width"]) == ("solid", "2px"), here
        name = "image" if here["name"].startswith("Image ") and " of " in here["name"] else here["name"]
        names.append("boxes" if here["list"] else name)
        x.page.keyboard.press(key)
    return names


def test_1_the_tab_key_goes_through_the_controls_in_order_and_back(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook, "vlm_nb.explore([scene(0), scene(1)])")
    x.wait_image()
    x.ask("", "Find")
    x.task("Ask")
    assert tab_names(x, "Tab", x.root.get_by_label("Model", exact=True)) == ORDER
    assert tab_names(x, "Shift+Tab", x.button("Export")) == ORDER[::-1]


def test_1_a_long_answer_is_no_stop_of_its_own_and_scrolls_by_keys(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook, "vlm_nb.explore([scene(0), scene(1)])", "scripted(0)\nNone")
    x.wait_image()
    x.ask("a long answer")
    no_boxes = [name for name in ORDER if name != "boxes"]
    assert tab_names(x, "Tab", x.root.get_by_label("Model", exact=True)) == no_boxes
    x.button("Export").focus()
    box = x.root.locator(".vlmx-answer")
    before = box.evaluate("node => node.scrollTop")
    x.page.keyboard.press("PageDown")
    x.page.wait_for_timeout(500)
    assert box.evaluate("node => node.scrollTop") > before


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_2_axe_finds_no_violation(notebook: NotebookPage, theme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python"
    )
    x = ExplorerPage.start(notebook, "vlm_nb.explore([scene(0), scene(1)])")
    notebook.theme(theme)
    x.wait_image()
    x.ask("", "Find")
    x.button("History").click()
    report = axe.Axe().run(x.page, context=".vlmx")
    assert report.violations_count == 0, report.generate_report()


def test_2_controls_have_roles_and_names(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook, "vlm_nb.explore([scene(0), scene(1)])")
    role = x.root.get_by_role
    for kind, name in (
        ("combobox", "Model"), ("combobox", "Quantisation"), ("combobox", "Device"), ("button", "Load"),
        ("textbox", "Images"), ("button", "Add"), ("button", "Upload"), ("button", "Previous image"),
        ("textbox", "Image number"), ("button", "Next image"), ("radio", "Ask"), ("radio", "Caption"),
        ("radio", "Find"), ("textbox", "Prompt"), ("button", "Send"), ("button", "Export"),
        ("button", "Copy"),
    ):  # fmt: skip
        assert role(kind, name=name, exact=True).count() == 1, (kind, name)


def test_3_keys_on_the_image_leave_the_cells_alone(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook)
    x.wait_image()
    before = notebook.sources()
    kinds = "return book.model.sharedModel.cells.map(cell => cell.cell_type);"
    x.stage.focus()
    for key in ("a", "b", "x", "m", "d", "d"):
        x.page.keyboard.press(key)
    x.button("Send").focus()
    for key in ("a", "b", "x", "m", "d", "d"):
        x.page.keyboard.press(key)
    assert notebook.sources() == before
    assert set(notebook.evaluate(kinds)) == {"code"}


LOADER = (
    "vlm_nb.explore([scene(0)], engine='scripted', script=answer, "
    "engine_args={'load_seconds': %s, 'delay': .01})"
)


def test_4_loading_shows_rising_progress_and_bytes(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook, LOADER % 3, "None")
    x.root.get_by_label("Model", exact=True).fill("toy")
    x.button("Load").click()
    bar = x.root.get_by_role("progressbar")
    bar.wait_for()
    seen: list[int] = []
    while bar.is_visible():
        value = bar.get_attribute("aria-valuenow")
        if value is not None and int(value) not in seen:
            seen.append(int(value))
            if len(seen) == 2:
                assert " / " in x.root.locator(".vlmx-line").inner_text()
        x.page.wait_for_timeout(50)
    assert len(seen) >= 3
    assert seen == sorted(seen)
    x.root.get_by_text("toy · cpu").wait_for()
    x.ask("What colour?")
    assert x.python("print(vlm_nb.current().name)") == "toy"


def test_4_another_cell_runs_during_a_load_and_cancel_ends_it(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook, LOADER % 30, "None")
    x.root.get_by_label("Model", exact=True).fill("toy")
    x.button("Load").click()
    x.root.get_by_role("progressbar").wait_for()
    assert notebook.python("print(6 * 7)").strip() == "42"
    x.button("Cancel").click()
    x.root.get_by_text("Loading was cancelled.").wait_for()
    x.button("Load").wait_for()
    assert x.python("print(len(vlm_nb.loaded()))") == "0"


@pytest.mark.parametrize(
    ("error", "name", "words"),
    [
        (
            "vlm_nb.errors.OutOfMemory('out of memory: 9 GB needed, 6 GB free; quantization=\"4bit\" fits.')",
            "toy",
            "4bit",
        ),
        (
            "vlm_nb.errors.ModelNotFound('no model called nonsense; check the name.')",
            "nonsense",
            "check the name",
        ),
        (
            "vlm_nb.errors.DownloadError('the network is off; a model in the local cache still loads.')",
            "org/far",
            "network",
        ),
        ("RuntimeError('broken driver')", "toy", "RuntimeError: broken driver"),
    ],
    ids=["memory", "name", "offline", "unknown"],
)
def test_5_a_failed_load_is_an_alert_with_details(
    notebook: NotebookPage, error: str, name: str, words: str
) -> None:
    fail = (
        "import vlm_nb.engines.scripted as s\nimport vlm_nb.errors\n"
        f"def fail(*a): raise {error}\n"
        "s.ScriptedBackend.open, kept = fail, s.ScriptedBackend.open"
    )
    x = ExplorerPage.start(notebook, LOADER % 0, fail)
    x.root.get_by_label("Model", exact=True).fill(name)
    x.button("Load").click()
    alert = x.alerts.filter(has_text=words)
    alert.wait_for()
    assert not alert.locator("pre").is_visible()
    alert.get_by_text("Details").click()
    assert alert.locator("pre").inner_text().startswith("Traceback")
    x.python("s.ScriptedBackend.open = kept")
    x.button("Load").click()
    x.root.get_by_text(f"{name} · cpu").wait_for()
    x.ask("What colour?")


def test_5_a_name_that_is_not_there_offline_with_the_real_engine(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook, setup="None")
    x.root.get_by_label("Model", exact=True).fill("nobody/nothing-at-all")
    x.button("Load").click()
    alert = x.alerts.filter(has_text="nobody/nothing-at-all")
    alert.wait_for(timeout=60_000)
    assert "Traceback" not in alert.locator("p").first.inner_text()
    assert x.button("Load").is_enabled()
    assert x.python("print(len(vlm_nb.loaded()))") == "0"


def test_the_model_field_names_the_model_that_answers(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook, setup="None")
    field = x.root.get_by_label("Model", exact=True)
    field.fill("demo")
    x.button("Load").click()
    x.root.get_by_text("demo · cpu").wait_for(timeout=60_000)
    field.fill("demoo")
    x.button("Load").click()
    x.alerts.filter(has_text="demoo").wait_for(timeout=60_000)
    assert field.input_value() == "demoo"  # to be corrected
    x.button("Unload").click()
    x.root.get_by_text("demo was unloaded").wait_for()
    x.ask("What colour is the circle?")
    assert field.input_value() == "demo"


def test_unload_says_so_and_closing_unloads_what_was_loaded_here(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook, LOADER % 0, "None")
    x.root.get_by_label("Model", exact=True).fill("toy")
    x.button("Load").click()
    x.root.get_by_text("toy · cpu").wait_for()
    x.button("Unload").click()
    x.root.get_by_text("toy was unloaded").wait_for()
    x.button("Load").click()
    x.root.get_by_text("toy · cpu").wait_for()
    x.python("x.close()")
    names = x.python(
        "import time, threading; time.sleep(.5); print(len(vlm_nb.loaded()), "
        "[t.name for t in threading.enumerate() if 'explorer' in t.name])"
    )
    assert names == "0 []"
