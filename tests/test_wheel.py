"""The wheel and the sdist: what is in them, what is not, and that nothing needs a compiler."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytest.importorskip("hatchling")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True, timeout=120
    )
    return folder


def test_the_wheel_is_pure_small_and_complete(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name.endswith("py3-none-any.whl")
    assert wheel.stat().st_size < 16_000_000
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in ("vlm_nb/py.typed", "vlm_nb/demo/CARD.md", "vlm_nb/demo/weights/model.safetensors"):
        assert wanted in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "examples/")) or name.endswith(".pyc")]


def test_the_sdist_holds_tests_and_docs(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "docs/architecture.md", "tests/test_wheel.py"} <= names


def test_the_wheel_installs_bare_and_answers_from_elsewhere(built: Path, tmp_path: Path) -> None:
    """Unpacked beside nothing else of the project, the package loads its demo model and answers."""
    (wheel,) = built.glob("*.whl")
    target = tmp_path / "site"
    options = ["-q", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True, timeout=300)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "import vlm_nb\n"
        f"assert vlm_nb.__file__.startswith({str(target)!r}), vlm_nb.__file__\n"
        "from vlm_nb import demo\n"
        "model = vlm_nb.load('demo')\n"
        "answer = model.caption(next(iter(demo.sample_images().values())))\n"
        "assert answer.caption and 'drawn scenes' in answer.notes[0], answer\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=300)
