"""Print how long functions and files are, and which blocks are repeated: ``python tests/code_statistics.py``.

``test_code_statistics.py`` holds the limits.
"""

from __future__ import annotations

import ast
import statistics
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent / "vlm_nb"
LONG_FUNCTION = 30
LONG_FILE = 250
BLOCK = 6
"""So many equal lines in a row are a repeated block."""


def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def place(path: Path) -> str:
    return str(path.relative_to(ROOT.parent))


def lengths(path: Path) -> list[tuple[int, str]]:
    """(lines of code without the docstring, "file:function") of each function in ``path``."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            found.append((lines or 0, f"{place(path)}:{node.name}"))
    return found


def functions() -> list[tuple[int, str]]:
    """All functions, the shortest first."""
    return sorted(length for path in files() for length in lengths(path))


def sizes() -> list[tuple[int, str]]:
    """All files with their lines, the shortest first."""
    return sorted((len(path.read_text(encoding="utf-8").splitlines()), place(path)) for path in files())


def most_of(counts: list[int]) -> int:
    """The length that 90 % of the functions keep to."""
    return counts[int(len(counts) * 0.9)]


def code_lines(path: Path) -> list[tuple[int, str]]:
    """(number, text) of the lines that say something: no blanks, comments, docstrings or imports."""
    text = path.read_text(encoding="utf-8")
    silent: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        words = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if words or isinstance(node, ast.Import | ast.ImportFrom):
            silent.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    numbered = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(n, line) for n, line in numbered if n not in silent and line and not line.startswith("#")]


def repeated_blocks() -> list[list[str]]:
    """Each block of ``BLOCK`` equal lines that stands in several places, as "file:line" of each.

    Lines of brackets alone do not count; a longer repetition is reported once, at its first lines.
    """
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for path in files():
        lines = [(n, line) for n, line in code_lines(path) if any(c.isalnum() for c in line)]
        for index in range(len(lines) - BLOCK + 1):
            window = tuple(line for _, line in lines[index : index + BLOCK])
            places[window].append((place(path), lines[index][0]))
    found, covered = [], set()
    for at in places.values():
        if len(at) > 1 and not all((file, line - 1) in covered for file, line in at):
            found.append([f"{file}:{line}" for file, line in at])
        if len(at) > 1:
            covered.update(at)
    return found


def main() -> None:
    every, listed = functions(), sizes()
    counts = [length for length, _ in every]
    print(f"{len(listed)} files, {sum(size for size, _ in listed)} lines, {len(every)} functions")
    print(f"function body: median {statistics.median(counts):.0f} lines, 90 % at most {most_of(counts)}")
    print("longest functions:", *(f"  {n:3} {name}" for n, name in every[-8:]), sep="\n")
    long = [entry for entry in listed if entry[0] > LONG_FILE]
    print(f"files over {LONG_FILE} lines:", *(f"  {n:3} {name}" for n, name in long), sep="\n")
    blocks = repeated_blocks()
    print(f"blocks of {BLOCK} lines that are repeated: {len(blocks)}", *map("  ".join, blocks), sep="\n  ")


if __name__ == "__main__":
    main()
