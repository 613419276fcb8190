"""The wheel and the sdist of this checkout, built once a session."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def build(source: Path, target: Path, *kinds: str) -> None:
    """Build "wheel" or "sdist" of the project in ``source`` into ``target``."""
    options = ["-d", str(target), *(f"-t{kind}" for kind in kinds)]
    command = [sys.executable, "-m", "hatchling", "build", *options]
    subprocess.run(command, cwd=source, check=True, timeout=120)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the wheel and the sdist."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("release")
    build(ROOT, folder, "wheel", "sdist")
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> zipfile.ZipFile:
    """The wheel, opened."""
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)
