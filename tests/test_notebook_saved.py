"""An executed and saved notebook: what is in the file, how large it is, and what nbconvert makes of it."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hostile import ANSWERS, RAW
from PIL import Image

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

CELLS = [
    "%load_ext vlm_nb\nimport vlm_nb\n"
    "answers = {answers!r}\n"
    "vlm_nb.load('scripted', engine='scripted', script=answers, engine_args={{'delay': 0.02}})\n"
    "None",
    "%vqa photo.jpg What is it?",
    "%%vqa photo.jpg\n- What is it?\n- And that?\n- And this?",
    "%ground photo.jpg the car",
    "%caption photo.jpg",
    "%caption photo.jpg small.png",
    "%vqa photo.jpg markup",
    "%vlm status",
    "vlm_nb.current().ground('small.png', 'car').figure()",
]
SCRIPT = {
    "Locate": '```json\n[{"bbox_2d": [100, 100, 400, 300], "label": "car"}]\n```',
    "markup": ANSWERS["markup"],
    "": "one two three four five",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook after it was executed, with a noisy 12-megapixel photo."""
    folder = tmp_path_factory.mktemp("saved")
    Image.effect_noise((4000, 3000), 80).convert("RGB").save(folder / "photo.jpg", quality=60)
    Image.new("RGB", (64, 48), "blue").save(folder / "small.png")
    sources = [CELLS[0].format(answers=SCRIPT), *CELLS[1:]]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    nbclient.NotebookClient(made, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return made


def kinds(cell: Any) -> list[str]:
    """The types of a cell's outputs, without what was printed."""
    return [output.output_type for output in cell.outputs if output.output_type != "stream"]


def test_each_answer_is_there_once(saved: Any) -> None:
    assert [kinds(cell) for cell in saved.cells] == [
        [],
        ["display_data"],
        ["display_data"] * 3,
        ["display_data"],
        ["display_data"],
        ["display_data", "execute_result"],  # the progress, the table
        ["display_data"],
        ["display_data"],
        ["execute_result"],
    ]


def test_the_file_holds_the_final_answers(saved: Any) -> None:
    for cell in saved.cells[1:5]:
        for output in cell.outputs:
            assert "▌" not in output.data["text/html"]
            assert "vlm-nb" in output.data["text/html"]
    assert "one two three four five" in saved.cells[1].outputs[0].data["text/html"]
    assert (
        "1 box" in saved.cells[3].outputs[0].data["text/plain"]
        or "car" in saved.cells[3].outputs[0].data["text/plain"]
    )


def test_a_figure_is_a_picture_without_any_matplotlib_magic(saved: Any) -> None:
    picture = Image.open(io.BytesIO(base64.b64decode(saved.cells[-1].outputs[0].data["image/png"])))
    assert 320 <= picture.width <= 340  # a screen pixel each, and the margin of %matplotlib inline


def test_outputs_are_small(saved: Any) -> None:
    sizes = [len(json.dumps(output)) for cell in saved.cells for output in cell.outputs]
    assert max(sizes) <= 150_000
    assert sum(len(json.dumps(output)) for output in saved.cells[2].outputs) <= 200_000


def test_nbconvert_makes_a_page_with_the_answers(saved: Any, tmp_path: Path) -> None:
    nbconvert = pytest.importorskip("nbconvert")
    page, _ = nbconvert.HTMLExporter().from_notebook_node(saved)
    assert "one two three four five" in page
    assert "data:image/jpeg;base64," in page
    body = page[page.index("<body") :]
    assert not any(raw in body.replace("<style>", "") for raw in RAW)
