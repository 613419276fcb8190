"""The Explorer comparing two loaded models, and models of a server, in JupyterLab and Notebook 7."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import Chat, chat_server

from .explorer_page import CONTRAST, ExplorerPage
from .jupyter_server import NotebookPage

pytestmark = pytest.mark.browser

TWO = """
def shifted(request):
    if "Locate" not in request.messages[-1].text:
        return answer(request).replace("red", "crimson")
    boxes = ("red circle", (.16, .15, .46, .55)), ("blue square", (.5, .4, .9, .9)), ("sky", (0, 0, 1, .1))
    return found(request, *boxes)

def second(delay=.02):
    return vlm_nb.load("another", engine="scripted", script=shifted, engine_args={"delay": delay},
                       generation_config={"max_new_tokens": 10_000}, keep=True)
"""


def two(notebook: NotebookPage, delay: float = 0.01) -> ExplorerPage:
    """A widget with "scripted" in use and "another" chosen to compare with."""
    load = f"scripted({delay}); second({delay}); vlm_nb.registry.use('scripted')\nNone"
    x = ExplorerPage.start(notebook, "vlm_nb.explore([scene(0), scene(1)])", TWO + load)
    x.wait_image()
    x.root.get_by_role("combobox", name="Compare with").select_option("another")
    return x


def pane(x: ExplorerPage, letter: str) -> Any:
    return x.root.get_by_role("group", name=f"Answer {letter}")


def test_compare_two_answers_stand_side_by_side(notebook: NotebookPage) -> None:
    x = two(notebook)
    x.ask("What colour?")
    left, right = pane(x, "A"), pane(x, "B")
    assert "The circle is red" in left.inner_text()
    assert "The circle is crimson" in right.inner_text()
    assert ("scripted" in left.inner_text(), "another" in right.inner_text()) == (True, True)
    a, b = left.bounding_box(), right.bounding_box()
    assert a["y"] == pytest.approx(b["y"], abs=2)
    assert a["x"] + a["width"] <= b["x"] + 1
    x.root.get_by_text("Agreement 0.89 of 1").wait_for()
    x.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    x.button("Copy").click()
    copied = x.page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("A scripted: The circle is red")
    assert "\n\nB another: The circle is crimson" in copied
    x.root.get_by_role("combobox", name="Compare with").select_option("No other model")
    x.ask("What colour?")
    assert pane(x, "B").count() == 0
    assert not notebook.console_errors


def test_compare_boxes_of_both_are_told_apart(notebook: NotebookPage) -> None:
    x = two(notebook)
    x.ask("", "Find")
    assert [row.split("\n")[0] for row in x.boxes.get_by_role("option").all_inner_texts()] == [
        "A1",
        "A2",
        "B1",
        "B2",
        "B3",
    ]
    labels = x.root.locator(".vlmx-label text").all_text_contents()
    assert "A red circle" in labels
    assert "B sky" in labels
    drawn = x.page.evaluate(
        """() => [...document.querySelectorAll(".vlmx-box")].map(box => {
          const style = getComputedStyle(box.querySelector(".vlmx-edge"));
          return [box.dataset.side, style.stroke, style.strokeDasharray];
        }).sort()"""
    )
    lines = {side: {dash for one, _, dash in drawn if one == side} for side in "AB"}
    assert lines["A"] == {"none"}
    assert len(lines["B"]) == 1
    assert lines["B"] != {"none"}
    red = {side: [colour for one, colour, _ in drawn if one == side] for side in "AB"}
    assert set(red["A"]) < set(red["B"]), "one colour a phrase, for both models"
    first = x.boxes.get_by_role("option").first
    assert "IoU 0.67" in first.inner_text()
    first.hover()
    hot = x.root.locator(".vlmx-box.is-hot").evaluate_all("nodes => nodes.map(n => n.dataset.side).sort()")
    assert hot == ["A", "B"]
    assert x.root.locator(".vlmx-row.is-hot").count() == 2
    verdict = x.root.locator(".vlmx-verdict").inner_text()
    assert verdict == f"Mean box IoU {(2 / 3 + 1) / 3:.2f}"
    x.page.mouse.click(*x.point(0.8, 0.8))
    x.page.keyboard.press("Delete")
    x.page.wait_for_function("() => document.querySelectorAll('.vlmx [role=option]').length === 4")
    x.page.wait_for_function(
        "before => document.querySelector('.vlmx-verdict').innerText !== before", arg=verdict
    )


def test_compare_stop_stops_both(notebook: NotebookPage) -> None:
    x = two(notebook, 0.05)
    x.ask("slow, please", wait=False)
    x.page.wait_for_function(
        "() => [...document.querySelectorAll('.vlmx-text')].every(n => n.textContent.includes('slow5'))"
    )
    x.page.wait_for_timeout(600)
    x.button("Stop").click()
    x.wait_status("Stopped", timeout=4000)
    kept = x.root.locator(".vlmx-text").all_inner_texts()
    x.page.wait_for_timeout(1000)
    assert x.root.locator(".vlmx-text").all_inner_texts() == kept
    assert x.python("print([p.usage.finish_reason for p in x.predictions])") == "['cancelled', 'cancelled']"
    x.ask("What colour?")
    assert x.python("print([p.usage.finish_reason for p in x.predictions][2:])") == "['stop', 'stop']"


def test_compare_is_kept_in_history_results_and_the_saved_notebook(
    notebook: NotebookPage, tmp_path: Path
) -> None:
    x = two(notebook)
    x.ask("", "Find")
    x.button("Next image").click()
    x.page.wait_for_function("() => document.querySelectorAll('.vlmx [role=option]').length === 0")
    x.button("History").click()
    entry = x.root.get_by_role("button", name="1. Find every object")
    assert "scripted and another: Mean box IoU" in entry.inner_text()
    entry.click()
    pane(x, "B").wait_for()
    assert x.boxes.get_by_role("option").count() == 5
    frame = json.loads(x.python("print(x.results[['model', 'turn', 'agreement']].to_json(orient='records'))"))
    assert [row["model"] for row in frame] == ["scripted", "another"]
    assert frame[0]["turn"] == frame[1]["turn"] == 1
    assert frame[0]["agreement"] == pytest.approx(0.556, abs=0.01)
    x.button("Export").click()
    with x.page.expect_download() as download:
        x.button("HTML page").click()
    download.value.save_as(tmp_path / "answers.html")
    assert "B sky" in (tmp_path / "answers.html").read_text(encoding="utf-8")
    x.page.wait_for_timeout(500)
    outputs = notebook.save()["cells"][1]["outputs"]
    assert "B sky" in "".join(outputs[-1]["data"]["text/html"])
    assert len(json.dumps(outputs)) <= 200_000
    assert not notebook.console_errors


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast"])
def test_compare_axe_finds_no_violation_and_it_looks_right(
    notebook: NotebookPage, theme: str, screenshots: Path
) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python"
    )
    x = two(notebook)
    notebook.theme(theme)
    x.ask("", "Find")
    x.button("History").click()
    report = axe.Axe().run(x.page, context=".vlmx")
    assert report.violations_count == 0, report.generate_report()
    assert x.page.evaluate(CONTRAST) == []
    kind = theme.split(" ", 1)[1].lower().replace(" ", "-")
    x.shoot(screenshots / f"explorer-{notebook.server.app}-compare-{kind}.png")


def test_compare_narrow_answers_stand_below_each_other(notebook: NotebookPage, screenshots: Path) -> None:
    x = two(notebook)
    x.ask("What colour?")
    x.root.evaluate("node => { node.style.width = '320px'; }")
    x.page.wait_for_timeout(300)
    a, b = pane(x, "A").bounding_box(), pane(x, "B").bounding_box()
    assert b["y"] >= a["y"] + a["height"]
    assert x.root.evaluate("node => node.scrollWidth <= node.clientWidth")
    assert x.root.get_by_role("combobox", name="Compare with").bounding_box()["height"] >= 24
    x.shoot(screenshots / f"explorer-{notebook.server.app}-compare-narrow.png")


def test_compare_is_chosen_with_the_keyboard_alone(notebook: NotebookPage) -> None:
    x = two(notebook)
    rival = x.root.get_by_role("combobox", name="Compare with")
    rival.select_option("No other model")
    x.prompt.focus()
    keyboard = x.page.keyboard
    keyboard.press("Alt+ArrowDown")
    assert x.root.get_by_role("radio", name="Caption").is_checked()
    keyboard.press("Alt+ArrowUp")
    keyboard.press("Alt+ArrowUp")
    assert x.root.get_by_role("radio", name="Find").is_checked()
    keyboard.press("Tab")
    keyboard.press("ArrowLeft")
    keyboard.press("ArrowLeft")
    assert x.root.get_by_role("radio", name="Caption").is_checked()
    x.button("Send").focus()
    keyboard.press("ArrowRight")
    keyboard.press("ArrowDown")
    assert rival.evaluate("node => node.selectedOptions[0].textContent") == "another"
    keyboard.press("Tab")
    keyboard.press("Enter")
    x.wait_status("Done")
    assert "A crimson circle" in pane(x, "B").inner_text() or "crimson" in pane(x, "B").inner_text()


def test_compare_a_second_model_is_loaded_beside_the_first(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(
        notebook,
        "vlm_nb.explore([scene(0)], engine='scripted', script=answer, engine_args={'delay': .01})",
        "None",
    )
    model = x.root.get_by_label("Model", exact=True)
    for name in ("first", "second"):
        model.fill(name)
        x.button("Load").click()
        x.root.get_by_text(f"{name} · cpu").wait_for()
        if name == "first":
            assert not x.root.get_by_role("combobox", name="Compare with").is_visible()
            x.root.get_by_role("checkbox", name="Keep loaded").check()
    x.root.get_by_text("beside first").wait_for()
    x.root.get_by_role("combobox", name="Compare with").select_option("first")
    x.ask("What colour?")
    x.root.get_by_text("The answers are the same").wait_for()
    model.fill("first")
    x.button("Load").click()
    x.root.get_by_text("first · cpu").wait_for()
    assert x.python("print([m.name for m in vlm_nb.loaded()])") == "['first', 'second']"


def test_compare_a_model_loaded_in_a_cell_appears_when_the_prompt_is_focused(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook, setup=f"{TWO}\nscripted()\nNone")
    x.wait_image()
    x.python("second()")
    x.page.wait_for_timeout(3100)
    x.prompt.focus()
    x.root.get_by_role("combobox", name="Compare with").wait_for()


# Models of a server -----------------------------------------------------------------------------------------


@pytest.fixture
def chat() -> Iterator[Chat]:
    with chat_server(models=("tiny", "large"), delay=0.01) as started:
        yield started


def test_a_servers_models_are_listed_loaded_and_compared(
    notebook: NotebookPage, chat: Chat, screenshots: Path
) -> None:
    pytest.importorskip("openai")
    x = ExplorerPage.start(notebook, setup="None")
    x.wait_image()
    x.root.get_by_label("Device", exact=True).select_option("server")
    assert not x.root.get_by_label("Quantisation", exact=True).is_visible()
    server = x.root.get_by_label("Server", exact=True)
    assert server.evaluate("node => [...node.list.options].map(o => o.value)").count("ollama") == 1
    server.fill(chat.url)
    server.press("Tab")
    x.root.get_by_text("The server offers tiny, large.").wait_for()
    model = x.root.get_by_label("Model", exact=True)
    assert model.evaluate("node => [...node.list.options].map(o => o.value)") == ["tiny", "large"]
    for name in ("tiny", "large"):
        model.fill(name)
        x.button("Load").click()
        x.root.get_by_text(f"{name} · {chat.url}").wait_for()
        x.root.get_by_role("checkbox", name="Keep loaded").check()
    x.root.get_by_role("combobox", name="Compare with").select_option("tiny")
    x.ask("What is it?")
    x.root.get_by_text("The answers are the same").wait_for()
    assert "echo What is it?" in x.text.inner_text()
    assert sorted(body["model"] for body in chat.bodies) == ["large", "tiny"]
    x.shoot(screenshots / f"explorer-{notebook.server.app}-server.png")
    assert not notebook.console_errors
    assert not notebook.foreign_requests


def test_a_servers_model_chosen_from_the_list_brings_its_address(notebook: NotebookPage, chat: Chat) -> None:
    pytest.importorskip("openai")
    x = ExplorerPage.start(
        notebook, setup=f"vlm_nb.load('tiny', engine='openai', base_url={chat.url!r})\nNone"
    )
    model = x.root.get_by_label("Model", exact=True)
    x.page.wait_for_function(
        "() => [...document.querySelector('.vlmx input').list.options].some(o => o.value === 'large')"
    )
    model.fill("large")
    assert x.root.get_by_label("Server", exact=True).input_value() == chat.url
    x.button("Load").click()
    x.root.get_by_text(f"large · {chat.url}").wait_for()


def test_a_server_that_is_not_there_is_an_alert(notebook: NotebookPage) -> None:
    pytest.importorskip("openai")
    x = ExplorerPage.start(notebook)
    x.root.get_by_label("Device", exact=True).select_option("server")
    server = x.root.get_by_label("Server", exact=True)
    server.fill("http://127.0.0.1:9/v1")
    server.press("Tab")
    x.alerts.filter(has_text="Is the server running").wait_for()
    x.root.get_by_label("Device", exact=True).select_option("cpu")
    assert x.root.get_by_label("Quantisation", exact=True).is_visible()
    x.ask("What colour?")
