"""The widget's geometry (``static/geometry.js``): pure functions, run in Node where there is one."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from typing import Any

import pytest

from vlm_nb.explorer import assets

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(
    NODE is None, reason="no Node.js (the browser tests cover the same functions)"
)

RUN = """
import * as g from %s;
const styles = (items) => [...g.phraseStyles(items).values()];
console.log(JSON.stringify((() => { %s })()));
"""


def js(body: str) -> Any:
    """Run JavaScript with the module as ``g`` and return what it returns."""
    source = base64.b64encode((assets.FOLDER / "geometry.js").read_bytes()).decode()
    path = json.dumps(f"data:text/javascript;base64,{source}")
    command = [str(NODE), "--no-warnings", "--input-type=module", "-e", RUN % (path, body)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_image_fits_whole_and_centred() -> None:
    wide = js("return g.placeImage([400, 200], {w: 200, h: 200}, {z: 1, cx: .5, cy: .5});")
    assert wide == {"x": 0, "y": 50, "w": 200, "h": 100}
    tiny = js("return g.placeImage([10, 10], {w: 500, h: 400}, {z: 1, cx: .5, cy: .5});")
    assert (tiny["w"], tiny["x"]) == (80, 210)


@pytest.mark.parametrize("size", [(4000, 3000), (3000, 4000), (50, 4000), (140, 140)])
@pytest.mark.parametrize("zoom", [1.0, 3.7, 40.0])
def test_screen_and_image_agree_both_ways(size: tuple[int, int], zoom: float) -> None:
    back = js(f"""
      const view = {{w: 613.5, h: 402.25}};
      const rect = g.placeImage({list(size)}, view, {{z: {zoom}, cx: .3, cy: .8}});
      const box = [.21, .32, .43, .87];
      const r = g.toScreen(box, rect);
      return [...g.toImage([r.x, r.y], rect), ...g.toImage([r.x + r.w, r.y + r.h], rect)];
    """)
    assert back == pytest.approx([0.21, 0.32, 0.43, 0.87])


def test_zooming_keeps_the_point_under_the_pointer_and_leaves_no_gap() -> None:
    before, after, corner = js("""
      const view = {w: 600, h: 400}, size = [1200, 800], at = [150, 300];
      const start = {z: 1, cx: .5, cy: .5};
      const near = g.zoomAt(start, 4, at, size, view);
      const far = g.panBy(near, 5000, 5000, size, view);
      return [g.toImage(at, g.placeImage(size, view, start)), g.toImage(at, g.placeImage(size, view, near)),
              g.placeImage(size, view, far)];
    """)
    assert after == pytest.approx(before)
    assert (corner["x"], corner["y"]) == (0, 0)


def test_zooming_out_ends_at_the_whole_image() -> None:
    assert js("return g.zoomAt({z: 2, cx: .1, cy: .9}, .1, [3, 4], [100, 80], {w: 300, h: 300});") == {
        "z": 1, "cx": 0.5, "cy": 0.5,
    }  # fmt: skip


def test_a_drag_back_and_out_of_the_image_is_ordered_and_clipped() -> None:
    assert js("return g.boxBetween([.8, .2], [-.4, 1.3]);") == [0, 0.2, 0.8, 1]


def test_a_click_takes_the_smallest_box_and_again_the_next() -> None:
    picked = js("""
      const boxes = [[0, 0, 1, 1], [.2, .2, .8, .8], [.4, .4, .5, .5]];
      const items = boxes.map((bbox, i) => ({id: i + 1, bbox}));
      const ids = g.boxesAt(items, [.45, .45]);
      const seen = []; let at = null;
      for (let i = 0; i < 4; i += 1) { at = g.nextAt(ids, at); seen.push(at); }
      return [seen, g.nextAt(g.boxesAt(items, [-.1, .5]), 2)];
    """)
    assert picked == [[3, 2, 1, 3], None]


def test_moving_and_resizing_stay_inside_the_image() -> None:
    moved, sized, crossed = js("""
      const box = [.1, .1, .3, .4];
      return [g.moveBox(box, -5, .9), g.resizeBox(box, "se", 5, -5), g.resizeBox(box, "w", 5, 0)];
    """)
    assert moved == pytest.approx([0, 0.7, 0.2, 1])
    assert sized == pytest.approx([0.1, 0.1, 1, 0.102])
    assert crossed == pytest.approx([0.298, 0.1, 0.3, 0.4])


@pytest.mark.parametrize(
    ("point", "handle"),
    [
        ((100, 100), "nw"), ((203, 198), "se"), ((150, 99), "n"), ((101, 150), "w"), ((120, 100), "move"),
        ((150, 150), None), ((300, 150), None),
    ],
)  # fmt: skip
def test_handles_are_at_corners_and_sides(point: tuple[int, int], handle: str | None) -> None:
    assert js(f"return g.handleAt({{x: 100, y: 100, w: 100, h: 100}}, {list(point)});") == handle


def test_colours_repeat_with_dashes_and_ink_stays_readable() -> None:
    styles = js("return styles([...Array(9).keys()].map(i => ({phrase: `p${i % 8}`})));")
    assert len(styles) == 8
    assert styles[0] == {"order": 0, "colour": "#E69F00", "ink": "#000", "dashed": False}
    assert styles[4]["ink"] == "#fff"
    assert styles[7]["colour"] == "#E69F00"
    assert styles[7]["dashed"]


LABELS = """
  const frame = {x: 0, y: 0, w: 500, h: 400};
  const measure = (text) => [text.length * 7 + 10, 18];
  const out = g.layOutLabels(items, frame, measure);
  const inside = out.every(l => l.x >= 0 && l.y >= -.5 && l.x + l.w <= 500.5 && l.y + l.h <= 400.5);
  const cross = (a, b) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
  const apart = out.every((a, i) => out.every((b, j) => i === j || !cross(a, b)));
  return {out, inside, apart};
"""


@pytest.mark.parametrize(
    "items",
    [
        "Array.from({length: 30}, (_, i) => ({id: i, number: i + 1, phrase: `part ${i}`,"
        " rect: {x: 100 + i, y: 100 + i, w: 200, h: 150}}))",
        "Array.from({length: 10}, (_, i) => ({id: i, number: i + 1, phrase: `very long name of a thing ${i}`,"
        " rect: {x: 0, y: 0, w: 500, h: 400}}))",
        "[{id: 0, number: 1, phrase: 'at the edge', rect: {x: 480, y: 0, w: 20, h: 20}}]",
        "Array.from({length: 200}, (_, i) => ({id: i, number: i + 1, phrase: 'x',"
        " rect: {x: i % 20 * 24, y: Math.floor(i / 20) * 38, w: 20, h: 20}}))",
    ],
    ids=["30 overlapping", "10 on the whole image", "corner", "200"],
)
def test_labels_stay_inside_and_apart(items: str) -> None:
    made = js(f"const items = {items};" + LABELS)
    assert made["inside"]
    assert made["apart"]
    assert made["out"]


def test_labels_are_shortened_by_characters_and_numbered_when_there_are_many() -> None:
    short = js("return g.shorten('👩‍🔬 ' + 'x'.repeat(40));")
    assert short.endswith("…")
    assert len(short) <= 24
    rect = "{x: i * 30, y: 50, w: 20, h: 50}"
    many = f"Array.from({{length: 13}}, (_, i) => ({{id: i, number: i + 1, phrase: 'cat', rect: {rect}}}))"
    assert {label["text"] for label in js(f"const items = {many};" + LABELS)["out"]} == {
        str(i) for i in range(1, 14)
    }


def test_boxes_of_two_models_are_lettered_in_lists_and_labels() -> None:
    sides = (
        "[{id: 5, side: 0, phrase: 'cat'}, {id: 7, side: 1, phrase: 'cat'}, {id: 9, side: 1, phrase: 'dog'}]"
    )
    alone = js("return g.numbered([{id: 1, phrase: 'cat'}, {id: 2, phrase: 'cat'}], false);")
    assert [item["number"] for item in alone] == ["1", "2"]
    assert [item["number"] for item in js(f"return g.numbered({sides}, true);")] == ["A1", "B1", "B2"]
    rects = "(item, i) => ({...item, rect: {x: i * 120, y: 100, w: 100, h: 100}})"
    made = js(f"const items = g.numbered({sides}, true).map({rects});" + LABELS)["out"]
    assert {label["text"] for label in made} == {"A cat", "B cat", "B dog"}
