"""Fixtures of the browser tests: one browser, one server per application, a fresh notebook per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .jupyter_server import CHROMIUM_ARGS, JupyterServer, NotebookPage, chromium_path, jupyter_server


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium through Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = chromium_path()
    if path is None:
        pytest.skip("no Chromium: bash tests/browser/install_chromium.sh")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_ARGS))
        yield started
        started.close()


@pytest.fixture(scope="session", params=["lab", "notebook"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[JupyterServer]:
    """JupyterLab 4, then Notebook 7."""
    pytest.importorskip("jupyterlab" if request.param == "lab" else "notebook")
    with jupyter_server(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page in a context of its own, 1280 × 900."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(15_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def notebook(page: Any, server: JupyterServer) -> Iterator[NotebookPage]:
    """A fresh notebook with an idle kernel."""
    opened = NotebookPage.open(page, server)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def screenshots(pytestconfig: pytest.Config) -> Path:
    """Where screenshots are kept: ``build/screenshots`` (not in git)."""
    folder = pytestconfig.rootpath / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
