"""``%vqa photo.jpg Is it red?`` ends with a question mark, which IPython would take for a request for help.

Two input transformers, tried before IPython's own, hand such a line to the magic; ``%vqa?`` still shows help.
They come too late for the cell that loads the extension: ``advice`` says so.
"""

from __future__ import annotations

import re
import tokenize
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.inputtransformer2 import EscapedCommand, MagicAssign

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_ASKS = re.compile(r"%(vqa|ground|caption)[ \t]+(?!\?+\s*$)\S")
"""One of our magics with something after its name; ``%vqa?`` alone is help."""
_LOST = re.compile(r"(\w+\s*=\s*)?%(vqa|ground|caption)\s.*\?$")
_LOADS = ["%load_ext", "vlm_nb"]
Line = list[tokenize.TokenInfo]


class AskingLine(EscapedCommand):
    """``%vqa …``, whatever it ends with."""

    priority = 1

    @classmethod
    def find(cls, tokens_by_line: list[Line]) -> Any:
        """Return the transformer of the first such line, or None."""
        return _first(cls, tokens_by_line, _indents)


class AskingAssignment(MagicAssign):
    """``answer = %vqa …``, whatever it ends with."""

    priority = 1

    @classmethod
    def find(cls, tokens_by_line: list[Line]) -> Any:
        """Return the transformer of the first such line, or None."""
        return _first(cls, tokens_by_line, _after_assignment)

    def __init__(self, start: tuple[int, int]) -> None:
        super().__init__((start[0], 0))  # type: ignore[no-untyped-call] # sorts before help syntax
        self._column = start[1]

    def transform(self, lines: list[str]) -> list[str]:
        """Return the lines with a call in place of the magic."""
        self.start_col = self._column
        changed: list[str] = super().transform(lines)
        return changed


def _first(cls: type, lines: list[Line], start: Callable[[Line], int | None]) -> Any:
    for line in lines:
        place = start(line)
        if place is not None and place < len(line) and _ASKS.match(line[place].line, line[place].start[1]):
            return cls(line[place].start)
    return None


def _indents(line: Line) -> int:
    layout = (tokenize.INDENT, tokenize.DEDENT)
    return next((place for place, token in enumerate(line) if token.type not in layout), 0)


def _after_assignment(line: Line) -> int | None:
    """The place after the first ``=``, outside brackets, of a plain assignment."""
    depth = 0
    for place, token in enumerate(line):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(token.string, 0)
        if token.string == "=" and depth == 0:
            return place + 1
        if token.string == "%":
            return None
    return None


def register(shell: InteractiveShell) -> None:
    """Put the transformers before IPython's."""
    shell.input_transformer_manager.token_transformers[:0] = [AskingAssignment, AskingLine]


def unregister(shell: InteractiveShell) -> None:
    """Take them out again."""
    transformers = shell.input_transformer_manager.token_transformers
    transformers[:] = [t for t in transformers if t not in (AskingAssignment, AskingLine)]


def advice(cell: str) -> str | None:
    """What to say of a cell that loads the extension and asks below it, where IPython takes that for help."""
    lines = [line.strip() for line in cell.splitlines()]
    loads = next((place for place, line in enumerate(lines) if line.split() == _LOADS), len(lines))
    lost = next((line for line in lines[loads:] if _LOST.match(line)), None)
    if lost is None:
        return None
    return f"IPython takes this line for a call for help; run it again in a cell of its own:  {lost}"


def running_cell(shell: InteractiveShell) -> str:
    """The text of the cell that runs, as it was written; empty where the shell keeps no history."""
    history = getattr(shell.history_manager, "input_hist_raw", None)
    return history[-1] if history else ""
