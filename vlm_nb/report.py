"""A small table of facts that reads well as text and as HTML: what ``%vlm status`` and ``doctor`` return."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_TABLE = "border-collapse: collapse; margin: .3em 0 .8em"
_CELL = (
    "text-align: left; padding: .15em .9em .15em 0; vertical-align: top; white-space: pre-wrap; "
    "overflow-wrap: anywhere"  # in a narrow cell words break where the table would be cut off
)


@dataclass(slots=True)
class Section:
    """Rows under a heading; every row has as many cells as the widest one. ``head`` names the columns."""

    title: str
    rows: list[tuple[str, ...]] = field(default_factory=list)
    head: tuple[str, ...] = ()

    def add(self, *cells: Any) -> None:
        """Append a row; a cell of None reads as a dash."""
        self.rows.append(tuple("–" if cell is None else str(cell) for cell in cells))


@dataclass(slots=True)
class Report:
    """Sections of facts, and what to do about them: (problem, command) pairs. All text is shown escaped."""

    sections: list[Section] = field(default_factory=list)
    advice: list[tuple[str, str]] = field(default_factory=list)

    def section(self, title: str, *head: str) -> Section:
        """Start a section and return it."""
        self.sections.append(Section(title, head=head))
        return self.sections[-1]

    def facts(self) -> dict[str, dict[str, str]]:
        """Section → first cell → second cell, for programs."""
        return {s.title: {row[0]: row[1] for row in s.rows if len(row) > 1} for s in self.sections}

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in self._lines())

    def __repr__(self) -> str:
        return str(self)

    def _lines(self) -> Iterator[str]:
        for section in self.sections:
            yield section.title
            rows = [section.head, *section.rows] if section.head else section.rows
            widths = _widths(rows)
            for row in rows:
                yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        for problem, command in self.advice:
            yield f"! {problem}" + (f":  {command}" if command else "")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._html()}

    def _html(self) -> str:
        parts = [_section_html(section) for section in self.sections]
        for problem, command in self.advice:
            code = f": <code>{html.escape(command)}</code>" if command else ""
            parts.append(f"<p>⚠ {html.escape(problem)}{code}</p>")
        return f'<div class="mathjax_ignore tex2jax_ignore">{"".join(parts)}</div>'


def _widths(rows: list[tuple[str, ...]]) -> list[int]:
    count = max((len(row) for row in rows), default=0)
    return [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(count)]


def _section_html(section: Section) -> str:
    head = "".join(f'<th scope="col" style="{_CELL}">{html.escape(cell)}</th>' for cell in section.head)
    body = "".join(_row_html(row) for row in section.rows)
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    return (
        f'<table style="{_TABLE}"><caption style="text-align: left; font-weight: 600; caption-side: top">'
        f"{html.escape(section.title)}</caption>{top}<tbody>{body}</tbody></table>"
    )


def _row_html(row: tuple[str, ...]) -> str:
    first = f'<th scope="row" style="{_CELL}; font-weight: normal; opacity: .75">{html.escape(row[0])}</th>'
    rest = "".join(f'<td style="{_CELL}">{html.escape(cell)}</td>' for cell in row[1:])
    return f"<tr>{first}{rest}</tr>"
