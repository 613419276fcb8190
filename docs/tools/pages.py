"""MkDocs hook: the pages that are not written in docs/.

The notebooks of ``examples/``, CHANGELOG, CONTRIBUTING and the demo model's card become pages as they are;
links to those files lead to the pages. A notebook's outputs are put in when Markdown has done its work.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
FIRST = ("quickstart", "dataframe", "chat", "extract", "explorer")
ELSEWHERE = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
ELSEWHERE["vlm_nb/demo/CARD.md"] = "demo_card.md"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
IMAGES = ("image/png", "image/jpeg")

_outputs: dict[str, list[str]] = {}


def notebooks() -> list[Path]:
    """The notebooks of examples/, in the order of the nav: those of ``FIRST``, then by name."""
    rank = {name: number for number, name in enumerate(FIRST)}
    found = (ROOT / "examples").glob("*.ipynb")
    return sorted(found, key=lambda path: (rank.get(path.stem, len(rank)), path.stem))


def on_config(config: Any) -> Any:
    """Fill the nav's list of notebooks."""
    pages = [{title(path): page_of(path)} for path in notebooks()]
    for entry in config.nav:
        if "Notebooks" in entry:
            entry["Notebooks"] = pages
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages."""
    for source, page in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    for path in notebooks():
        files.append(File.generated(config, page_of(path), content=notebook_page(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to files outside docs/ to their pages here."""
    for source, target in ELSEWHERE.items():
        markdown = markdown.replace(f"](../{source})", f"]({target})")
    for path in notebooks():
        markdown = markdown.replace(f"](../examples/{path.name})", f"]({page_of(path)})")
    return markdown


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Put the notebook's outputs where its cells stand."""
    for number, output in enumerate(_outputs.get(page.file.src_uri, [])):
        content = content.replace(f"<p>{mark(number)}</p>", output)
    return content


def page_of(notebook: Path) -> str:
    """The page's path in the site's sources."""
    return f"notebooks/{notebook.stem}.md"


def title(notebook: Path) -> str:
    """The notebook's first heading."""
    cells = nbformat.read(notebook, as_version=4).cells
    headings = (re.match(r"# (.+)", cell.source) for cell in cells if cell.cell_type == "markdown")
    return next((found[1].replace("`", "") for found in headings if found), notebook.stem)


def notebook_page(path: Path) -> str:
    """The notebook as Markdown, with a mark for each cell that has outputs."""
    made = _outputs[page_of(path)] = []
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts.append(linked(cell.source))
        elif cell.source.strip():
            parts.append(f"````ipython\n{cell.source}\n````")
            shown = "".join(map(output_html, cell.get("outputs", [])))
            if shown:
                parts.append(mark(len(made)))
                made.append(f'<div class="nb-output">{shown}</div>')
    parts.append(f"*The notebook as it was saved: `examples/{path.name}`.*")
    return "\n\n".join(parts)


def linked(markdown: str) -> str:
    """A notebook's links as they go on the site: to pages; a script beside it has none."""
    markdown = re.sub(r"\]\(\.\./docs/", "](../", markdown)
    markdown = re.sub(r"\]\((\w+)\.ipynb", r"](\1.md", markdown)
    return re.sub(r"\[([^\]]+)\]\(\w+\.py\)", r"\1", markdown)


def mark(number: int) -> str:
    """What stands for the outputs of a cell until Markdown is done."""
    return f"nb-output-{number}-here"


def output_html(output: Any) -> str:
    """One output as a page shows it."""
    if output.output_type == "stream":
        return "" if output.name == "stderr" else _text(output.text)
    if output.output_type == "error":
        return _text("\n".join(output.traceback))
    data = output.get("data", {})
    if "text/html" in data:
        return str(data["text/html"])
    for kind in IMAGES:
        if kind in data:
            return f'<img alt="output of the cell" src="data:{kind};base64,{data[kind].strip()}">'
    return _text(data.get("text/plain", ""))


def _text(text: str) -> str:
    return f"<pre>{html.escape(ANSI.sub('', text))}</pre>" if text.strip() else ""
