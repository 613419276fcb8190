"""What the tests of the ray engine share: quick imports for Ray's processes, and who of them is alive."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest


@contextmanager
def light_imports() -> Iterator[None]:
    """Keep ``rfc3987_syntax`` from Ray's processes: it compiles a grammar for seconds in each of them.

    jsonschema, which Ray imports, takes it where it is there (JupyterLab brings it along) and does without.
    The modules of the tests can be imported there, too.
    """
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        Path(folder, "rfc3987_syntax.py").write_text('raise ImportError("not needed")\n')
        parts = (folder, str(Path(__file__).parent), os.environ.get("PYTHONPATH"))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, parts)))
        yield


def ray_processes(title: str = "") -> list[psutil.Process]:
    """The living processes of Ray beneath this one, those with ``title`` in their command."""
    living = psutil.Process().children(recursive=True)
    return [one for one in living if _is_ray(one) and title in _title(one)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _is_ray(process: psutil.Process) -> bool:
    try:
        ended = process.status() == psutil.STATUS_ZOMBIE
        words = process.cmdline()[:3]
        return not ended and any("/ray/" in word or word.startswith("ray") for word in words)
    except psutil.Error:
        return False
