"""The notebooks of examples/: each runs, and says in plain text what its saved outputs say."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("xgrammar")

FOLDER = Path(__file__).parent.parent / "examples"
COMPARED = ("quickstart", "extract", "chat", "annotate", "family", "format", "server", "cluster")
MARKS = {"dataframe": pytest.mark.slow, "server": pytest.mark.slow, "cluster": pytest.mark.ray}
CHANGES = re.compile(
    r"^.*( · |\brows in\b|\bMB\b|0x[0-9a-f]+).*$"  # costs, loads, progress
    r"|\d+\.\d+"  # coordinates and scores: the last digits are the processor's
    r"| {2,}| +$|[+-]{3,}",  # padding
    re.MULTILINE,
)


def notebooks() -> list[Any]:
    names = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    return [pytest.param(name, marks=[MARKS[name]] if name in MARKS else []) for name in names]


def told(cell: Any) -> list[str]:
    """The plain text of a cell's outputs, without what changes from run to run."""
    shown = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in shown]
    lines = (line.strip() for text in texts for line in CHANGES.sub(" ", text).splitlines())
    return [line for line in lines if line]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", notebooks())
def test_notebook(name: str, tmp_path: Path) -> None:
    from examples.execute import execute

    if name == "cluster":
        pytest.importorskip("ray")
    for needed in (f"{name}.ipynb", "serve.py"):
        shutil.copy(FOLDER / needed, tmp_path)
    saved = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    done = execute(tmp_path / f"{name}.ipynb")
    assert len(done.cells) == len(saved.cells)
    if name in COMPARED:
        for before, after in zip(saved.cells, done.cells, strict=True):
            if "%vlm status" not in before.source:
                assert told(after) == told(before), before.source


def test_the_kernel_is_quiet_and_the_page_names_no_other_host(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from examples.execute import execute, write_page

    cells = [nbformat.v4.new_code_cell("1 + 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "small.ipynb")
    page = write_page(execute(tmp_path / "small.ipynb"), tmp_path / "small.html")
    assert "TCP" not in capfd.readouterr().err
    assert not re.search(r"""(src|href)=["']?https?:|\bimport\b[^;]*https?:""", page.read_text("utf-8"))


@pytest.mark.parametrize("name", [path.stem for path in sorted(FOLDER.glob("*.ipynb"))])
def test_no_machine_path_is_saved(name: str) -> None:
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)
