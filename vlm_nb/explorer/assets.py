"""The widget's JavaScript and CSS, from files of this package: never from the network.

The front end loads one ES module from a Blob, where relative imports fail; so the source files, which import
each other as usual (and are tested so), are joined here.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

FOLDER = Path(__file__).parent / "static"
PARTS = ("geometry", "dom", "stage", "boxes", "composer", "answer", "tools", "models", "images", "explorer")
_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) )", re.MULTILINE)


@functools.cache
def esm() -> str:
    """The whole widget as one ES module."""
    return "\n".join(_joined(FOLDER / f"{name}.js") for name in PARTS)


@functools.cache
def css() -> str:
    """The widget's style sheet."""
    return (FOLDER / "explorer.css").read_text(encoding="utf-8")


def _joined(path: Path) -> str:
    return _EXPORT.sub("", _IMPORT.sub("", path.read_text(encoding="utf-8")))
