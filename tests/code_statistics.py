"""Print how long functions and files are: ``python tests/code_statistics.py``."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

ROOT = Path(__file__).parent.parent / "vlm_nb"


def lengths(path: Path) -> list[tuple[int, str]]:
    """(lines of code without the docstring, "file:function") of each function in ``path``."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            found.append((lines or 0, f"{path.relative_to(ROOT.parent)}:{node.name}"))
    return found


def main() -> None:
    files = sorted(ROOT.rglob("*.py"))
    functions = sorted(length for path in files for length in lengths(path))
    counts = [length for length, _ in functions]
    sizes = sorted(
        (len(p.read_text(encoding="utf-8").splitlines()), str(p.relative_to(ROOT.parent))) for p in files
    )
    print(f"{len(files)} files, {sum(size for size, _ in sizes)} lines, {len(functions)} functions")
    most = counts[int(len(counts) * 0.9)]
    print(f"function body: median {statistics.median(counts):.0f} lines, 90 % at most {most}")
    print("longest functions:", *(f"  {n:3} {name}" for n, name in functions[-8:]), sep="\n")
    print("longest files:", *(f"  {n:3} {name}" for n, name in sizes[-8:]), sep="\n")


if __name__ == "__main__":
    main()
