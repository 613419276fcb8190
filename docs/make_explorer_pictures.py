"""Take the pictures of the Explorer for the documentation: ``python docs/make_explorer_pictures.py``.

Starts a real Notebook 7 with the demo model and drives it in headless Chromium: ``docs/explorer.png`` (an
answer), ``docs/images/explorer-compare.png`` (two models) and ``docs/images/explorer.webp`` (a short film).
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser.explorer_page import ExplorerPage  # noqa: E402
from browser.jupyter_server import CHROMIUM_ARGS, NotebookPage, chromium_path, jupyter_server  # noqa: E402

START = """
import vlm_nb
from vlm_nb.demo.scenes import draw_scene
images = [draw_scene(seed, min_objects=4).image for seed in SEEDS]
first = vlm_nb.load("demo")
"""
SECOND = "vlm_nb.load('demo', quantization='4bit', keep=True); vlm_nb.registry.use(first)"
SEEDS = "(3, 8, 12, 21)"
SECONDS = 180_000
WIDTH = 760
MOST_BYTES = 1_000_000


@contextmanager
def explorer(width: int, ratio: float) -> Iterator[ExplorerPage]:
    """The widget in a notebook whose cells are about ``width`` CSS pixels wide."""
    path = chromium_path()
    if path is None:
        raise SystemExit("no Chromium found: bash tests/browser/install_chromium.sh")
    with (
        tempfile.TemporaryDirectory() as folder,
        jupyter_server("notebook", Path(folder)) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_ARGS))
        size = {"width": width + 330, "height": 1400}
        page = browser.new_context(viewport=size, device_scale_factor=ratio).new_page()
        page.set_default_timeout(SECONDS)
        notebook = NotebookPage.open(page, server)
        notebook.set_cells([f"SEEDS = {SEEDS}{START}", "x = vlm_nb.explore(images)\nx", SECOND])
        notebook.run(0)
        notebook.run(1)
        x = ExplorerPage(notebook)
        x.root.evaluate(f"node => {{ node.style.width = '{width}px'; }}")
        x.wait_image()
        yield x
        notebook.close()
        browser.close()


def ask(x: ExplorerPage, task: str, prompt: str = "") -> None:
    """Ask and wait for the end."""
    x.task(task)
    if task != "Caption":
        x.prompt.fill(prompt)
    x.button("Send").click()
    x.page.wait_for_timeout(100)
    x.wait_status("Done", SECONDS)


def stills() -> None:
    """The two pictures."""
    with explorer(980, 1.25) as x:
        ask(x, "Find")
        x.boxes.get_by_role("option").first.hover()
        x.root.screenshot(path=ROOT / "docs" / "explorer.png")
        x.notebook.run(2)
        x.page.wait_for_timeout(3100)
        x.prompt.focus()
        rival = x.root.get_by_role("combobox", name="Compare with")
        rival.wait_for()
        rival.select_option(index=1)
        ask(x, "Find")
        x.root.screenshot(path=ROOT / "docs" / "images" / "explorer-compare.png")


class Film:
    """Frames of the widget, each shown for a while."""

    def __init__(self, x: ExplorerPage) -> None:
        self._x = x
        self.frames: list[Image.Image] = []
        self.times: list[int] = []

    def shoot(self, milliseconds: int) -> None:
        """Keep what is seen now; a frame like the last one only lengthens that."""
        frame = Image.open(io.BytesIO(self._x.root.screenshot())).convert("RGB")
        if self.frames and frame.tobytes() == self.frames[-1].tobytes():
            self.times[-1] += milliseconds
        else:
            self.frames.append(frame)
            self.times.append(milliseconds)

    def until(self, done: Callable[[], Any], most: int = 40) -> None:
        """Keep shooting until ``done``."""
        for _ in range(most):
            self.shoot(120)
            if done():
                break
            self._x.page.wait_for_timeout(60)

    def save(self, path: Path) -> None:
        """Write a WebP, whose colours are exact; raises SystemExit if it is too large for the repository."""
        size = max(f.width for f in self.frames), max(f.height for f in self.frames)  # it grows with answers
        first, *rest = (on_white(frame, size) for frame in self.frames)
        first.save(
            path, save_all=True, append_images=rest, duration=self.times, loop=0, lossless=True, method=6
        )
        if path.stat().st_size > MOST_BYTES:
            raise SystemExit(f"{path} has {path.stat().st_size} bytes; at most {MOST_BYTES}.")


def on_white(frame: Image.Image, size: tuple[int, int]) -> Image.Image:
    """``frame`` at the upper left of a white image of ``size``."""
    whole = Image.new("RGB", size, "white")
    whole.paste(frame)
    return whole


def film() -> None:
    """Find, hover, correct, ask about a region."""
    with explorer(WIDTH, 1) as x:
        film = Film(x)
        film.shoot(900)
        x.task("Find")
        film.shoot(400)
        x.button("Send").click()
        film.until(lambda: x.root.locator(".vlmx-status").inner_text() == "Done")
        film.shoot(1200)
        for place in range(min(3, x.boxes.get_by_role("option").count())):
            x.boxes.get_by_role("option").nth(place).hover()
            x.settle()
            film.shoot(700)
        x.drag((0.12, 0.12), (0.46, 0.46))
        film.shoot(900)
        x.task("Caption")
        film.shoot(300)
        x.button("Send").click()
        film.until(lambda: x.root.locator(".vlmx-status").inner_text() == "Done")
        film.shoot(2200)
        film.save(ROOT / "docs" / "images" / "explorer.webp")


if __name__ == "__main__":
    stills()
    film()
