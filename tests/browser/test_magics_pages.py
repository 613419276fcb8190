"""The magics in real front ends: JupyterLab, Notebook 7, and a page that nbconvert made, light and dark."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hostile import ANSWERS
from PIL import Image, ImageDraw

from .jupyter_server import NotebookPage

pytestmark = pytest.mark.browser
THEMES = ("JupyterLab Light", "JupyterLab Dark")
WORDS = 40
SETUP = f"""
%load_ext vlm_nb
import vlm_nb
def script(request):
    return " ".join(f"word{{i}}" for i in range({WORDS}))
model = vlm_nb.load("slow", engine="scripted", script=script, engine_args={{"delay": 0.05}})
"""


def picture(path: Path) -> None:
    """A white picture with a red car's worth of red at pixels 112–336 × 84–252 of 448 × 336."""
    image = Image.new("RGB", (448, 336), "white")
    ImageDraw.Draw(image).rectangle((112, 84, 336, 252), fill="red")
    image.save(path)


@pytest.fixture
def ready(notebook: NotebookPage) -> NotebookPage:
    """A notebook with a slow model and ``a.png`` beside it."""
    picture(notebook.server.root / "a.png")
    notebook.set_cells([SETUP])
    notebook.run(0)
    return notebook


def test_an_answer_grows_and_is_shown_once(ready: NotebookPage) -> None:
    ready.set_cells(["%vqa a.png What is it?"])
    ready.run(0, wait=False)
    seen: list[int] = []
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and (not seen or seen[-1] < WORDS):
        seen.append(ready.output(0).inner_text().count("word"))
        time.sleep(0.05)
    assert len({count for count in seen if 0 < count < WORDS}) >= 3
    assert seen[-1] == WORDS
    assert seen == sorted(seen)
    time.sleep(0.5)
    assert ready.output(0).inner_text().count("word") == WORDS
    assert [output["output_type"] for output in ready.outputs(0)] == ["display_data"]
    assert not ready.console_errors
    assert not ready.foreign_requests


def test_stop_keeps_the_partial_answer(ready: NotebookPage) -> None:
    ready.set_cells(["%vqa a.png What is it?", "%vqa a.png And now?"])
    ready.run(0, wait=False)
    ready.output(0).get_by_text("word3", exact=False).wait_for()
    ready.interrupt()
    ready.output(0).get_by_text("stopped", exact=False).first.wait_for()
    assert 1 <= ready.output(0).inner_text().count("word") < WORDS
    ready.run(1)
    assert ready.output(1).inner_text().count("word") == WORDS


def test_the_saved_file_holds_the_final_answer(ready: NotebookPage) -> None:
    ready.set_cells(["%vqa a.png What is it?"])
    ready.run(0)
    output = ready.save()["cells"][0]["outputs"][0]
    assert "".join(output["data"]["text/plain"]).count("word") == WORDS


def hostile_cells() -> list[str]:
    """One cell an answer."""
    load = "vlm_nb.load('hostile', engine='scripted', script=answer); None"
    return [f"answer = {answer!r}\n{load}\n%vqa a.png What?" for answer in ANSWERS.values()]


@pytest.mark.parametrize("theme", THEMES)
def test_hostile_answers_are_text(ready: NotebookPage, theme: str, screenshots: Path) -> None:
    ready.theme(theme)
    ready.set_cells(hostile_cells())
    for index in range(len(ANSWERS)):
        ready.run(index)
    assert ready.page.evaluate("window.hacked") is None
    text = ready.output(0).inner_text()
    assert "<script>window.hacked = 1</script>" in text
    assert '<img src=x onerror="window.hacked = 2">' in text
    assert "$\\foo$" in text
    live = "script, svg[onload], img[src=x], a[href^=javascript], mjx-container"
    assert ready.output(0).locator(live).count() == 0
    ready.evaluate("book.activeCellIndex = 0; book.node.scrollTop = 0;")
    ready.page.screenshot(
        path=screenshots / f"hostile-{ready.server.app}-{theme.rsplit(maxsplit=1)[-1].lower()}.png"
    )
    ready.output(3).scroll_into_view_if_needed()
    ready.page.screenshot(
        path=screenshots / f"hostile2-{ready.server.app}-{theme.rsplit(maxsplit=1)[-1].lower()}.png"
    )
    assert not ready.foreign_requests


@pytest.mark.parametrize("theme", THEMES)
def test_a_tour_looks_right(ready: NotebookPage, theme: str, screenshots: Path) -> None:
    script = {
        "Locate": '```json\n[{"bbox_2d": [112, 84, 336, 252], "label": "red car"}]\n```',
        "": "A red car in front of a white wall.",
    }
    ready.theme(theme)
    ready.set_cells(
        [
            f"vlm_nb.load('tour', engine='scripted', script={script!r}); None",
            "%vqa a.png What is it?",
            "%ground a.png the red car",
            "%%vqa a.png\n- What is it?\n- And behind it?",
            "%caption a.png a.png",
            "%vlm status",
            "%vqa missing.png What?",
        ]
    )
    for index in range(7):
        ready.run(index)
    name = f"tour-{ready.server.app}-{theme.rsplit(maxsplit=1)[-1].lower()}"
    for part, index in enumerate((1, 3, 6)):
        ready.output(index).scroll_into_view_if_needed()
        ready.page.screenshot(path=screenshots / f"{name}-{part}.png")
    assert ready.output(2).locator("img").count() == 1
    assert "SourceNotFound: no file, folder or variable 'missing.png'" in ready.output(6).inner_text()
    assert "Traceback" not in ready.output(6).inner_text()


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A notebook with hostile answers, executed without a front end, as a light and as a dark page."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    nbconvert = pytest.importorskip("nbconvert")
    folder = tmp_path_factory.mktemp("converted")
    picture(folder / "a.png")
    cells = ["%load_ext vlm_nb\nimport vlm_nb", *hostile_cells()]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(made, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    pages = {}
    for theme in ("light", "dark"):
        html, _ = nbconvert.HTMLExporter(theme=theme).from_notebook_node(made)
        pages[theme] = folder / f"{theme}.html"
        pages[theme].write_text(html, encoding="utf-8")
    return pages


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_converted_page_runs_nothing(
    page: Any, converted: dict[str, Path], theme: str, screenshots: Path
) -> None:
    page.route("http*://**", lambda route: route.abort())  # the page's own MathJax is not on this machine
    page.goto(converted[theme].as_uri())
    assert page.evaluate("window.hacked") is None
    assert "<script>window.hacked = 1</script>" in page.locator("body").inner_text()
    assert page.locator(".vlm-nb script, .vlm-nb img[src=x]").count() == 0
    page.screenshot(path=screenshots / f"converted-{theme}.png", full_page=True)
