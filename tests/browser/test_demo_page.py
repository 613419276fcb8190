"""The page that ``make demo`` leaves: opened without a network, it shows its answers and misses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser
NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


def test_the_page_needs_no_network(page: Any, tmp_path: Path, screenshots: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    from examples.execute import write_page

    asked: list[str] = []
    errors: list[str] = []
    page.context.route("http*://**", lambda route: (asked.append(route.request.url), route.abort()))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    saved = write_page(nbformat.read(NOTEBOOK, as_version=4), tmp_path / "quickstart.html")
    page.goto(saved.as_uri())
    assert page.locator(".vlm-nb img").first.is_visible()
    border = "node => getComputedStyle(node, '::after').borderTopWidth"
    assert page.locator(".vlm-nb-view").first.evaluate(border) == "1px"  # a white scene on a white page
    page.screenshot(path=screenshots / "demo-page.png")
    assert (asked, errors) == ([], [])
