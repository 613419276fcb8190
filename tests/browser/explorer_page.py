"""The Explorer in a notebook page, for the tests: how to start one, and names for its parts.

The scripted model answers by what the question contains; ``delay`` seconds a word make it stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .jupyter_server import NotebookPage

MODEL = r"""
import json, vlm_nb
from PIL import Image, ImageDraw

def scene(number=0, size=(640, 480), exif=None):
    image = Image.new("RGB", size, (236, 238, 240))
    pen = ImageDraw.Draw(image)
    w, h = size
    pen.ellipse((w * .1, h * .15, w * .4, h * .55), fill=(200, 40, 40))
    pen.rectangle((w * .5, h * .4, w * .9, h * .9), fill=(40, 80, 200))
    pen.text((10, 10), f"image {number}", fill=(0, 0, 0))
    return image

def found(request, *boxes):
    "The answer of a Qwen2.5-VL model: boxes in pixels of what it saw."
    w, h = request.input_sizes[0]
    rows = [{"bbox_2d": [round(b[0] * w), round(b[1] * h), round(b[2] * w), round(b[3] * h)], "label": name}
            for name, b in boxes]
    return "```json\n" + json.dumps(rows) + "\n```"

SCENE = [("red circle", (.1, .15, .4, .55)), ("blue square", (.5, .4, .9, .9))]
NESTED = [("outer", (.1, .1, .9, .9)), ("middle", (.2, .2, .8, .8)), ("inner", (.3, .3, .6, .6))]

def many(count, size=.06):
    return [(f"thing {i % 9}", (i % 20 * .048, i // 20 * .09, i % 20 * .048 + size, i // 20 * .09 + size))
            for i in range(count)]

def overlapping(count):
    return [(f"part {i}", (.2 + i * .01, .2 + i * .01, .6 + i * .01, .6 + i * .01)) for i in range(count)]

ANSWERS = {
    "colour": "The circle is red and the square is blue.",
    "long": " ".join(f"word{i}" for i in range(4000)),
    "slow": " ".join(f"slow{i}" for i in range(400)),
    "markup": '<img src=x onerror="window.hacked=1"><b>bold</b><script>window.hacked=1</script>',
    "languages": "مرحبا بالعالم שלום עולם 👩‍👩‍👧‍👦 🏳️‍🌈 日本語",
    "unicorn": "```json\n[]\n```",
}

def answer(request):
    text = request.messages[-1].text
    for word, reply in ANSWERS.items():
        if word in text:
            return reply
    for word, boxes in {"nested": NESTED, "200": many(200), "30": overlapping(30)}.items():
        if word in text:
            return found(request, *boxes)
    return found(request, *SCENE) if "Locate" in text else "A red circle beside a blue square."

def scripted(delay=.02, **more):
    return vlm_nb.load("scripted", engine="scripted", script=answer, engine_args={"delay": delay, **more},
                       generation_config={"max_new_tokens": 10_000})
"""


# What is shown and too pale: text under 4.5:1, edges of fields under 3:1.
CONTRAST = """() => {
  const luminance = (c) => {
    const [r, g, b] = c.map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const pen = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const parse = (css, under) => {
    pen.fillStyle = under; pen.fillRect(0, 0, 1, 1); pen.fillStyle = css; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const ground = (node) => {
    const chain = [];
    for (let n = node; n; n = n.parentElement) chain.unshift(getComputedStyle(n).backgroundColor);
    pen.fillStyle = "#fff"; pen.fillRect(0, 0, 1, 1);
    for (const css of chain) { pen.fillStyle = css; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const ratio = (a, b) => {
    const [x, y] = [luminance(a), luminance(b)].sort((p, q) => p - q);
    return (y + .05) / (x + .05);
  };
  const rgb = (c) => `rgb(${c.join()})`;
  const bad = [];
  const shown = (n) => n.getClientRects().length && !n.closest("[hidden]");
  for (const node of document.querySelectorAll(".vlmx *:not(svg *)")) {
    if (!shown(node) || node.closest(".vlmx-swatch, .vlmx-hidden, option, datalist, :disabled")) continue;
    const style = getComputedStyle(node), under = ground(node);
    const own = [...node.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    const colour = parse(style.color, rgb(under));
    if (own && ratio(colour, under) < 4.5) bad.push(["text", node.className, node.textContent]);
    if (!node.matches("input:not([type=radio]), select, textarea")) continue;
    const around = ground(node.parentElement);
    if (ratio(parse(style.borderTopColor, rgb(around)), around) < 3) bad.push(["edge", node.className]);
  }
  return bad;
}"""

# Targets of the pointer under 24 CSS pixels.
SMALL_TARGETS = """() => {
  const kinds = "button, select, textarea, input:not([type=radio], [type=file]), [role=option]";
  return [...document.querySelectorAll(`.vlmx :is(${kinds}, .vlmx-tasks label)`)]
    .filter(node => node.getClientRects().length)
    .filter(node => Math.min(node.offsetWidth, node.offsetHeight) < 24)
    .map(node => node.textContent || node.className);
}"""


@dataclass
class ExplorerPage:
    """The widget shown by cell 1 (cell 0 sets the model up)."""

    notebook: NotebookPage

    @classmethod
    def start(
        cls, notebook: NotebookPage, show: str = "vlm_nb.explore([scene(0)])", setup: str = ""
    ) -> ExplorerPage:
        """Run the set-up (``scripted()`` unless ``setup`` says otherwise) and show the widget ``x``."""
        notebook.set_cells([MODEL + (setup or "scripted()\nNone"), f"x = {show}\nx", "None"])
        notebook.run(0)
        notebook.run(1)
        made = cls(notebook)
        made.root.wait_for()
        return made

    @property
    def page(self) -> Any:
        return self.notebook.page

    @property
    def root(self) -> Any:
        return self.page.locator(".vlmx").first

    def button(self, name: str) -> Any:
        return self.root.get_by_role("button", name=name, exact=True)

    @property
    def prompt(self) -> Any:
        return self.root.get_by_role("textbox", name="Prompt")

    @property
    def stage(self) -> Any:
        return self.root.get_by_role("application")

    @property
    def boxes(self) -> Any:
        return self.root.get_by_role("listbox", name="Boxes")

    @property
    def status(self) -> Any:
        return self.root.get_by_role("status")

    @property
    def text(self) -> Any:
        return self.root.locator(".vlmx-text").first

    @property
    def alerts(self) -> Any:
        return self.root.get_by_role("alert")

    def task(self, name: str) -> None:
        self.root.get_by_text(name, exact=True).click()

    def ask(self, prompt: str, task: str = "Ask", *, wait: bool = True) -> None:
        """Ask and (``wait``) see it through to the end."""
        self.task(task)
        if task != "Caption":
            self.prompt.fill(prompt)
        self.button("Send").click()
        if wait:
            self.wait_status("Done")

    def wait_status(self, text: str, timeout: int = 20_000) -> None:
        self.page.wait_for_function(
            "text => document.querySelector('.vlmx-status').textContent === text", arg=text, timeout=timeout
        )

    def wait_image(self) -> None:
        self.page.wait_for_function("() => document.querySelector('.vlmx-picture')?.naturalWidth > 0")
        self.settle()

    def settle(self) -> None:
        """Two frames: what was asked for is drawn."""
        self.page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))"
        )

    def rects(self, selector: str) -> list[dict[str, float]]:
        """The rectangles of elements, relative to the stage."""
        self.settle()
        found: list[dict[str, float]] = self.page.evaluate(
            """selector => {
              const stage = document.querySelector(".vlmx-stage").getBoundingClientRect();
              return [...document.querySelectorAll(selector)].map(node => {
                const box = node.getBoundingClientRect();
                return {x: box.x - stage.x, y: box.y - stage.y, w: box.width, h: box.height};
              });
            }""",
            selector,
        )
        return found

    def image_rect(self) -> dict[str, float]:
        """Where the image is on the stage."""
        return self.rects(".vlmx-picture")[0]

    def point(self, x: float, y: float) -> tuple[float, float]:
        """The page position of a point in 0..1 of the image."""
        self.stage.scroll_into_view_if_needed()
        image = self.image_rect()
        stage = self.stage.bounding_box()
        return stage["x"] + image["x"] + x * image["w"], stage["y"] + image["y"] + y * image["h"]

    def drag(self, start: tuple[float, float], end: tuple[float, float], steps: int = 8) -> None:
        """Drag between two points in 0..1 of the image (which may lie outside it)."""
        mouse = self.page.mouse
        mouse.move(*self.point(*start))
        mouse.down()
        mouse.move(*self.point(*end), steps=steps)
        mouse.up()
        self.settle()

    def shoot(self, path: Path) -> None:
        """A picture of the whole widget: the page is made tall enough for it first."""
        before = self.page.viewport_size
        tall = self.root.evaluate("node => Math.ceil(node.offsetHeight) + 260")
        self.page.set_viewport_size({**before, "height": max(before["height"], tall)})
        self.root.evaluate("node => node.scrollIntoView({block: 'center'})")
        self.page.wait_for_timeout(300)
        self.root.screenshot(path=path)
        self.page.set_viewport_size(before)

    def python(self, code: str) -> str:
        return self.notebook.python(code).strip()
