"""Execute a notebook in a fresh kernel and leave a page of it.

``python examples/execute.py examples/quickstart.ipynb`` leaves an HTML page in ``demo-output/``; with
``--update`` the outputs are written into the notebook, too.
"""

from __future__ import annotations

import argparse
import sys
import time
import webbrowser
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

KEPT_METADATA = ("kernelspec", "language_info")
QUIET_KERNEL = ["--IPKernelApp.log_level=ERROR"]
"""No warning that the kernel talks over TCP: it listens on this machine alone, for as long as this runs."""
SELF_CONTAINED = """
{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
"""
"""nbconvert's page without the scripts that it loads from other hosts (require.js, MathJax, Mermaid)."""


def execute(path: Path, *, timeout: int = 900) -> nbformat.NotebookNode:
    """Run every cell of the notebook, in its folder; raises CellExecutionError at the first error."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        extra_arguments=QUIET_KERNEL,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what changes with every run and says nothing: times of execution, widget state, kernel details."""
    notebook.metadata = {key: notebook.metadata[key] for key in KEPT_METADATA if key in notebook.metadata}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


def write_page(notebook: nbformat.NotebookNode, target: Path) -> Path:
    """Write the executed notebook as one HTML page that loads nothing, and return its path."""
    page, _ = HTMLExporter(embed_images=True, raw_template=SELF_CONTAINED).from_notebook_node(notebook)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")
    return target


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    quickstart = Path(__file__).with_name("quickstart.ipynb")
    parser.add_argument("notebook", type=Path, nargs="?", default=quickstart)
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder of the HTML page")
    parser.add_argument("--update", action="store_true", help="write the outputs into the notebook, too")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    try:
        notebook = tidy(execute(options.notebook))
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        return 1
    if options.update:
        nbformat.write(notebook, options.notebook)
    page = write_page(notebook, options.output / f"{options.notebook.stem}.html")
    print(f"{options.notebook} ran in {time.perf_counter() - started:.0f} s.")
    print(f"Answers and overlays: {page.resolve()}")
    if options.open:
        webbrowser.open(page.resolve().as_uri())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
