"""The wheel and the sdist: what is in them and what is not; no compiler; a wheel alone answers."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from release import ROOT, build

import vlm_nb


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    packaged = {name for name in wheel.namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "vlm_nb"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tracked.returncode:
        pytest.skip("no git checkout")
    assert packaged == set(tracked.stdout.splitlines())


def test_the_parts_that_are_no_python_are_there(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for file in ("config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"):
        assert f"vlm_nb/demo/weights/{file}" in names
    assert len([name for name in names if name.startswith("vlm_nb/demo/images/")]) >= 5
    for kind in ("js", "css"):
        assert [name for name in names if name.startswith("vlm_nb/explorer/") and name.endswith(f".{kind}")]
    assert not [name for name in names if name.endswith((".so", ".pyd", ".c", ".pyx", ".bin", ".pkl", ".pt"))]


def test_the_weights_are_most_of_the_size(wheel: zipfile.ZipFile) -> None:
    sizes = {entry.filename: entry.file_size for entry in wheel.infolist()}
    weights = sum(size for name, size in sizes.items() if name.startswith("vlm_nb/demo/"))
    assert sum(sizes.values()) - weights < 1_500_000
    assert weights < 15_000_000


def test_no_compiler(wheel: zipfile.ZipFile) -> None:
    described = wheel.read(f"vlm_nb-{vlm_nb.__version__}.dist-info/WHEEL").decode()
    assert "Root-Is-Purelib: true" in described
    assert "Tag: py3-none-any" in described


def test_a_wheel_from_the_sdist_is_the_same_wheel(
    built: Path, wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    build(tmp_path / f"vlm_nb-{vlm_nb.__version__}", tmp_path / "again", "wheel")
    (path,) = (tmp_path / "again").glob("*.whl")
    with zipfile.ZipFile(path) as again:
        assert digests(again) == digests(wheel)


def digests(archive: zipfile.ZipFile) -> dict[str, str]:
    return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def test_the_sdist_builds_tests_and_documents_itself(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    wanted = {
        "Makefile",
        "constraints.txt",
        "tests/conftest.py",
        "examples/quickstart.ipynb",
        "vlm_nb/py.typed",
    }
    assert wanted <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", "site/"))]


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
