"""The module map of docs/architecture.md, enforced: imports point downwards, heavy packages load late."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vlm_nb

PACKAGE = Path(vlm_nb.__file__).parent

# From the top to the bottom of the house. A module may import from lower floors, and from its own package.
FLOORS = (
    {"magics", "explorer", "accessor"},
    {"diagnosis"},
    {"registry"},
    {"opening"},
    {"model", "chat", "comparing"},
    {"batch", "frames", "export"},
    {"ledger"},
    {"asking"},
    {"answering"},
    {"schema", "conversations"},
    {"engines"},
    {"machine"},
    {"families"},
    {"grounding"},
    {"sources"},
    {"results", "likeness", "display", "report"},
    {"config"},
    {"demo"},
    {"request"},
    {"errors", "extras"},
)

# Third-party packages that a module may import when it is itself imported (inside functions: anything).
AT_IMPORT = {
    "magics": {"IPython", "traitlets"},
    "explorer": {"anywidget", "ipywidgets", "traitlets", "IPython", "PIL"},
    "sources": {"PIL"},
    "families": {"PIL"},
    "display": {"PIL"},
    "demo": {"PIL"},
    "engines": {"torch", "transformers", "PIL"},
    "accessor": {"pandas"},
    "export": {"pandas"},
}


def floor_of(module: str) -> int | None:
    return next((i for i, names in enumerate(FLOORS) if module in names), None)


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0]
        name = part.removesuffix(".py")
        if name != "__init__":
            found.append((name, path))
    return found


def statements(tree: ast.Module) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """(all imports, imports that run when the module is imported), without those under TYPE_CHECKING."""
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    every = [
        n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom) and id(n) not in typing_only
    ]
    return every, [n for n in every if id(n) not in inside]


def imported(node: ast.stmt, path: Path) -> list[str]:
    """Absolute dotted names that the statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert isinstance(node, ast.ImportFrom)
    if not node.level:
        return [node.module or ""]
    package = ("vlm_nb", *path.relative_to(PACKAGE).parts[:-1])
    base = ".".join(package[: len(package) - node.level + 1])
    if node.module:
        return [f"{base}.{node.module}"]
    return [f"{base}.{alias.name}" for alias in node.names]


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: str(value).rsplit("vlm_nb/", 1)[-1])
def test_imports_point_downwards(name: str, path: Path) -> None:
    floor = floor_of(name)
    assert floor is not None, f"{name} has no floor: add it to FLOORS and to docs/architecture.md"
    every, _ = statements(ast.parse(path.read_text(encoding="utf-8")))
    for node in every:
        for target in imported(node, path):
            parts = target.split(".")
            if parts[0] != "vlm_nb" or len(parts) < 2 or parts[1] == name:
                continue
            below = floor_of(parts[1])
            if below is None:  # a name of the top package, such as __version__
                continue
            same = below == floor and name not in FLOORS[0]
            assert below > floor or same, f"{path.name} imports {target}, which is on a higher floor"


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: str(value).rsplit("vlm_nb/", 1)[-1])
def test_third_party_imports_are_late(name: str, path: Path) -> None:
    _, early = statements(ast.parse(path.read_text(encoding="utf-8")))
    allowed = AT_IMPORT.get(name, set())
    for node in early:
        for target in imported(node, path):
            top = target.split(".")[0]
            if top not in sys.stdlib_module_names and top != "vlm_nb":
                assert top in allowed, f"{path.name} imports {top} at import time"


HEAVY = ("torch", "transformers", "matplotlib", "ipywidgets", "pandas", "anywidget", "numpy", "PIL")
LIGHT = f"""
import sys
import vlm_nb
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, heavy
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
before = set(sys.modules)
shell.run_line_magic("load_ext", "vlm_nb")
assert "vqa" in shell.magics_manager.magics["cell"], "not registered"
heavy = [name for name in {HEAVY!r} if name in set(sys.modules) - before]
assert not heavy, heavy
"""


def test_import_and_load_ext_are_light() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", LIGHT], check=True, timeout=120)
