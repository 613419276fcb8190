"""Take the README's picture of the quickstart: ``python docs/make_screenshot.py``.

Renders ``examples/quickstart.ipynb``, as it is saved, in headless Chromium and cuts out the grounded image.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from execute import write_page  # noqa: E402

CELLS = ("%%vqa shapes", "%ground images")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


def chromium() -> str:
    """The browser's path; raises SystemExit naming the command that installs it."""
    found = os.environ.get("VLM_NB_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        raise SystemExit("no Chromium found: bash tests/browser/install_chromium.sh")
    return found


def main() -> None:
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.source.startswith(CELLS)]
    target = ROOT / "docs" / "images" / "quickstart.png"
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = write_page(notebook, Path(folder) / "page.html")
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 860, "height": 600}, device_scale_factor=1.25)
        page.goto(page_file.as_uri())
        page.locator("main").screenshot(path=target)
        browser.close()
    print(target)


if __name__ == "__main__":
    main()
