"""Tables of model answers, good and bad, with what must be read from them.

A table is written once per syntax and spelled for each format: ``§A`` stands for the four numbers of box A in
the format's order and unit, ``§A1`` … ``§A4`` for each of them, ``§P`` and ``§P1``/``§P2`` for a point.
What is expected is given in thousandths of the image: A = (100, 200, 300, 400), B = (500, 600, 700, 800).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

A = (100, 200, 300, 400)
B = (500, 600, 700, 800)
P = (250, 750)
Q = (500, 500)

Expected = tuple[str, tuple[int, ...]]
Spell = Callable[[float], str]


@dataclass(frozen=True)
class Case:
    """One text: its name, what it must read as, and the caption that is left (None: not checked)."""

    name: str
    text: str
    found: Sequence[Expected] = ()
    status: str | None = "found"
    caption: str | None = None
    asked: bool = True
    note: str = ""


def spelled(case: Case, number: Spell, *, y_first: bool = False, words: dict[str, str] | None = None) -> Case:
    """Return ``case`` with its placeholders written in a format's numbers (and other words replaced)."""
    text = case.text
    for name, box in (("§A", A), ("§B", B), ("§P", P), ("§Q", Q)):
        values = [number(v) for v in box]
        if y_first:
            values = [values[1], values[0], *([values[3], values[2]] if len(values) == 4 else [])]
        for i, value in enumerate(values, 1):
            text = text.replace(f"{name}{i}", value)
        text = text.replace(name, ", ".join(values))
    for old, new in (words or {}).items():
        text = text.replace(old, new)
    return Case(case.name, text, case.found, case.status, case.caption, case.asked, case.note)
