"""The Explorer's acceptance list, "Boxes": places, linking, labels, regions, corrections."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .explorer_page import ExplorerPage
from .jupyter_server import NotebookPage

pytestmark = pytest.mark.browser


def found(notebook: NotebookPage, what: str = "") -> ExplorerPage:
    x = ExplorerPage.start(notebook, setup="scripted(.001)\nNone")
    x.wait_image()
    x.ask(what, "Find")
    x.settle()
    return x


def bboxes(x: ExplorerPage) -> list[list[float]]:
    made: list[list[float]] = json.loads(
        x.python("import json; print(json.dumps([p.bbox for p in x.prediction.grounded_phrases]))")
    )
    return made


def test_20_none_is_said_in_words(notebook: NotebookPage) -> None:
    x = found(notebook, "unicorn")
    assert x.text.inner_text() == "No match for 'unicorn'"
    assert x.boxes.get_by_role("option").count() == 0


def edges_are_right(x: ExplorerPage) -> None:
    image = x.image_rect()
    drawn = sorted((r for r in x.page.evaluate(EDGES)), key=lambda r: r["x"])
    expected = sorted(bboxes(x))
    for rect, box in zip(drawn, expected, strict=True):
        assert rect["x"] == pytest.approx(image["x"] + box[0] * image["w"], abs=1)
        assert rect["y"] == pytest.approx(image["y"] + box[1] * image["h"], abs=1)
        assert rect["x"] + rect["w"] == pytest.approx(image["x"] + box[2] * image["w"], abs=1)
        assert rect["y"] + rect["h"] == pytest.approx(image["y"] + box[3] * image["h"], abs=1)


EDGES = """() => {
  const stage = document.querySelector(".vlmx-overlay").getBoundingClientRect();
  const own = document.querySelector(".vlmx-stage").getBoundingClientRect();
  return [...document.querySelectorAll(".vlmx-edge")].map(node => ({
    x: node.x.baseVal.value + stage.x - own.x, y: node.y.baseVal.value + stage.y - own.y,
    w: node.width.baseVal.value, h: node.height.baseVal.value}));
}"""


@pytest.mark.parametrize("ratio", [1, 2])
def test_21_edges_are_right_at_every_size(browser: Any, server: Any, ratio: int) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, device_scale_factor=ratio)
    page = context.new_page()
    notebook = NotebookPage.open(page, server)
    try:
        x = found(notebook)
        for width in (320, 700, 1400):
            page.set_viewport_size({"width": width + 160, "height": 900})
            x.root.evaluate(f"node => {{ node.style.width = '{width}px'; }}")
            page.wait_for_timeout(300)
            edges_are_right(x)
        if server.app == "lab":
            notebook.command("application:toggle-left-area")
            page.wait_for_timeout(500)
            edges_are_right(x)
    finally:
        notebook.close()
        context.close()


def test_22_two_hundred_boxes_hover_and_filter(notebook: NotebookPage) -> None:
    x = found(notebook, "200 things")
    assert x.boxes.get_by_role("option").count() == 200
    x.page.mouse.move(*x.point(0.01, 0.01))
    took = x.page.evaluate(
        """point => {
          const stage = document.querySelector(".vlmx-stage");
          const start = performance.now();
          const at = {clientX: point[0], clientY: point[1], bubbles: true};
          stage.dispatchEvent(new PointerEvent("pointermove", at));
          const hot = document.querySelectorAll(".vlmx-box.is-hot").length;
          return [performance.now() - start, hot];
        }""",
        list(x.point(0.07, 0.03)),
    )
    print(f"hover over 200 boxes: {took[0]:.1f} ms")
    assert took[1] == 1, "the box reacts within the very event"
    x.boxes.focus()
    x.page.keyboard.type("thing 3")
    assert x.boxes.get_by_role("option").count() == 22
    x.page.keyboard.press("Escape")
    assert x.boxes.get_by_role("option").count() == 200


def test_23_phrases_and_boxes_are_linked_both_ways(notebook: NotebookPage) -> None:
    x = found(notebook)
    options = x.boxes.get_by_role("option")
    options.nth(0).hover()
    hot = x.root.locator(".vlmx-box.is-hot")
    assert hot.count() == 1
    assert x.root.locator(".vlmx-box.is-dim").count() == 1
    x.page.mouse.move(*x.point(0.7, 0.6))
    x.settle()
    assert options.nth(1).get_attribute("class") == "vlmx-row is-hot"
    x.boxes.focus()
    x.page.keyboard.press("ArrowDown")
    chosen = x.boxes.get_by_role("option", selected=True)
    assert "blue square" in chosen.inner_text()
    assert x.boxes.get_attribute("aria-activedescendant") == chosen.get_attribute("id")
    assert x.root.locator(".vlmx-box.is-dim").count() == 1


def test_24_labels_stay_inside_and_apart(notebook: NotebookPage) -> None:
    x = found(notebook, "30 parts")
    image, labels = x.image_rect(), x.rects(".vlmx-label > rect")
    assert labels
    for a in labels:
        assert a["x"] >= image["x"] - 0.5
        assert a["y"] >= image["y"] - 0.5
        assert a["x"] + a["w"] <= image["x"] + image["w"] + 0.5
        assert a["y"] + a["h"] <= image["y"] + image["h"] + 0.5
        for b in labels:
            apart = a["x"] + a["w"] <= b["x"] + 0.1 or b["x"] + b["w"] <= a["x"] + 0.1
            apart = apart or a["y"] + a["h"] <= b["y"] + 0.1 or b["y"] + b["h"] <= a["y"] + 0.1
            assert a is b or apart


def test_25_nested_boxes_are_picked_smallest_first(notebook: NotebookPage) -> None:
    x = found(notebook, "nested things")
    chosen = x.boxes.get_by_role("option", selected=True)
    names = []
    for _ in range(4):
        x.page.mouse.click(*x.point(0.45, 0.45))
        x.settle()
        names.append(chosen.locator(".vlmx-phrase").inner_text())
    assert names == ["inner", "middle", "outer", "inner"]
    x.page.keyboard.press("Escape")
    x.drag((0.35, 0.35), (0.5, 0.55))
    assert x.root.locator(".vlmx-region").count() == 1


def test_26_a_region_is_dragged_even_past_the_edge_and_cancelled(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook)
    x.wait_image()
    x.drag((0.6, 0.5), (1.1, 1.2))
    chip = x.root.locator(".vlmx-chip")
    assert "Region 60%, 50% to 100%, 100%" in chip.inner_text()
    assert x.root.locator(".vlmx-region").count() == 1
    x.ask("", "Find")
    inside = bboxes(x)
    assert all(b[0] >= 0.59 and b[1] >= 0.49 for b in inside)
    region = [float(v) for v in x.python("print(*x._desk.turns[-1].answer.region)").split()]
    assert region == pytest.approx([0.6, 0.5, 1, 1], abs=0.005)
    x.stage.focus()
    x.page.keyboard.press("Escape")
    x.settle()
    assert not chip.is_visible()
    mouse = x.page.mouse
    mouse.move(*x.point(0.2, 0.2))
    mouse.down()
    mouse.move(*x.point(0.5, 0.5), steps=4)
    x.page.keyboard.press("Escape")
    mouse.up()
    x.settle()
    assert not chip.is_visible()


def test_27_a_region_by_two_clicks(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook)
    x.wait_image()
    x.root.get_by_role("button", name="Draw a region").click()
    x.page.mouse.click(*x.point(0.2, 0.25))
    x.page.mouse.click(*x.point(0.7, 0.75))
    assert "Region 20%, 25% to 70%, 75%" in x.root.locator(".vlmx-chip").inner_text()


def test_28_and_29_keys_change_boxes_one_gesture_at_a_time(notebook: NotebookPage) -> None:
    x = found(notebook)
    x.python("changes = []; x.observe(lambda c: changes.append(c), 'ui_boxes')")
    before = bboxes(x)
    x.page.mouse.click(*x.point(0.25, 0.3))
    pixel = 1 / 640
    x.page.keyboard.press("ArrowRight")
    x.page.wait_for_function("() => document.querySelector('.vlmx-badge')")
    assert bboxes(x)[0][0] == pytest.approx(before[0][0] + max(pixel, 1 / x.image_rect()["w"]), abs=pixel / 3)
    assert x.python("print(len(changes))") == "1"
    x.page.keyboard.press("Shift+ArrowDown")
    x.page.wait_for_timeout(400)
    assert bboxes(x)[0][1] - before[0][1] > 8 / 480
    x.page.keyboard.press("Alt+ArrowRight")
    x.page.wait_for_timeout(400)
    grown = bboxes(x)[0]
    assert grown[2] - grown[0] > before[0][2] - before[0][0]
    x.python("turn = x._desk.turns[-1]; first = turn.replies[0].prediction.grounded_phrases[0].bbox")
    assert x.python("print(turn.boxes.now[0].original.bbox == first)") == "True"
    for _ in range(3):
        x.page.keyboard.press("Control+z")
    x.page.wait_for_timeout(400)
    assert bboxes(x) == before
    x.page.keyboard.press("Delete")
    x.page.wait_for_timeout(400)
    assert len(bboxes(x)) == 1
    x.page.keyboard.press("Control+z")
    x.page.wait_for_timeout(400)
    assert bboxes(x) == before


def test_28_boxes_are_dragged_by_their_handles_and_renamed(notebook: NotebookPage) -> None:
    x = found(notebook)
    (x0, y0, x1, y1) = bboxes(x)[1]
    x.page.mouse.click(*x.point((x0 + x1) / 2, (y0 + y1) / 2))
    x.drag((x1, y1), (1.2, 1.2))
    x.page.wait_for_function("() => document.querySelector('.vlmx-badge')")
    assert bboxes(x)[1] == pytest.approx([x0, y0, 1, 1], abs=0.01)
    assert x.python("print(x.prediction.grounded_phrases[1].source)") == "human"
    x.boxes.get_by_role("option").nth(1).dblclick()
    x.root.get_by_role("textbox", name="New name").fill("big box")
    x.page.keyboard.press("Enter")
    x.boxes.get_by_text("big box").wait_for()
    assert x.python("print(x.prediction.grounded_phrases[1].phrase)") == "big box"


def test_30_and_31_h_hides_and_only_ctrl_wheel_zooms(notebook: NotebookPage) -> None:
    x = found(notebook)
    overlay = x.root.locator(".vlmx-overlay")
    x.stage.focus()
    x.page.keyboard.down("h")
    assert overlay.evaluate("node => getComputedStyle(node).visibility") == "hidden"
    x.page.keyboard.up("h")
    assert overlay.evaluate("node => getComputedStyle(node).visibility") == "visible"
    before = x.image_rect()
    x.page.mouse.move(*x.point(0.5, 0.5))
    x.page.mouse.wheel(0, 20)
    x.page.wait_for_timeout(200)
    assert x.image_rect()["w"] == before["w"]
    prevented = """ctrlKey => {
      const event = new WheelEvent("wheel", {deltaY: -200, ctrlKey, bubbles: true, cancelable: true});
      document.querySelector(".vlmx-stage").dispatchEvent(event);
      return event.defaultPrevented;
    }"""
    assert x.page.evaluate(prevented, False) is False
    assert x.page.evaluate(prevented, True) is True
    assert x.image_rect()["w"] > before["w"] * 1.5
