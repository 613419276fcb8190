"""The documentation: errors explained, pages reachable, links and anchors there, figures computed again."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import vlm_nb
from vlm_nb import errors

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
ERRORS = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.VLMError)]
MADE = {"contributing.md", "changelog.md", "demo_card.md"}  # by docs/tools/pages.py
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as MkDocs and GitHub make them of plain words."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    bare = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[\s-]+", "-", words) for words in bare}


def settings() -> dict[str, Any]:
    found = yaml.safe_load(text_of(ROOT / "mkdocs.yml"))
    assert isinstance(found, dict)
    return found


def nav_pages(entries: Any) -> Iterator[str]:
    """Every page that a nav names, depth first."""
    for entry in [entries] if isinstance(entries, str) else entries:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values():
                yield from nav_pages(below)


def tool(name: str) -> ModuleType:
    """A script of docs/tools as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


# Errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ERRORS, ids=lambda c: c.__name__)
def test_every_error_leads_to_its_cause_and_its_fix(cls: type[errors.VLMError]) -> None:
    page, _, anchor = cls.where_explained().partition("#")
    text = text_of(ROOT / page)
    assert anchor in anchors(ROOT / page)
    section = text.split(f"\n### {cls.__name__}\n")[1].split("\n### ")[0]
    cause, _, fix = section.partition("**Fix.**")
    assert len(cause.partition("**Cause.**")[2].split()) > 5, "no cause"
    assert len(fix.split()) > 5, "no fix"


def test_no_section_explains_what_is_no_error() -> None:
    sections = set(re.findall(r"^### (\w+)$", text_of(DOCS / "troubleshooting.md"), re.MULTILINE))
    assert sections == {cls.__name__ for cls in ERRORS}


# Pages, links, code -----------------------------------------------------------------------------------------


def test_the_nav_has_every_page_and_only_pages_that_are_there() -> None:
    found = settings()
    named = list(nav_pages(found["nav"]))
    outside = set(found["not_in_nav"].split())
    written = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert len(named) == len(set(named))
    assert set(named) <= written | MADE
    assert written <= set(named) | outside, "add it to the nav in mkdocs.yml"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_their_anchors_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)", FENCE.sub("", text_of(page))):
        name, _, anchor = target.partition("#")
        place = page.parent / name if name else page
        assert place.exists(), f"{target}: no such file"
        if anchor:
            assert anchor in anchors(place), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_code_has_a_language_and_a_reason_where_it_does_not_run(page: Path) -> None:
    fences = re.findall(r"^( *)(`{3,})(.*)$", text_of(page), re.MULTILINE)
    for number, (indent, _, language) in enumerate(fences):
        assert not indent, "tests/test_readme.py runs blocks that begin at the left edge"
        assert bool(language.strip()) == (number % 2 == 0), (
            f"fence {number} has no language, or is not closed"
        )
    for reason in re.findall(r"<!-- not run:(.*?)-->", text_of(page)):
        assert len(reason.split()) > 1


def test_the_api_page_has_every_public_name() -> None:
    page = text_of(DOCS / "api.md")
    for name in set(vlm_nb.__all__) - {"__version__"}:
        module, _, attribute = vlm_nb._PUBLIC[name].partition(":")
        wanted = {"load_image": "load", "VLMError": "errors"}.get(
            name, attribute or module.rsplit(".", 1)[-1]
        )
        assert re.search(rf"^::: vlm_nb\S*\.{wanted}$", page, re.MULTILINE) or f"`vlm_nb.{name}`" in page, (
            name
        )


def test_the_pages_that_the_hook_makes_have_their_sources() -> None:
    hook = text_of(DOCS / "tools" / "pages.py")
    for source, page in (("CHANGELOG.md", "changelog.md"), ("CONTRIBUTING.md", "contributing.md")):
        assert f'"{source}": "{page}"' in hook
        assert (ROOT / source).is_file()
    assert (ROOT / "vlm_nb" / "demo" / "CARD.md").is_file()


# Figures ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fits() -> ModuleType:
    return tool("what_fits")


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-VL-3B-Instruct", "google/paligemma-3b-mix-224"])
def test_a_row_of_what_fits_is_what_the_estimator_says(fits: ModuleType, name: str) -> None:
    (known,) = [model for model in fits.MODELS if model.name == name]
    fit = fits.compute(known)
    assert fit.parameters / 1e9 == pytest.approx(known.billions, rel=0.01)
    assert fits.row(known, fit) in text_of(DOCS / "models.md").splitlines()


def test_what_fits_has_a_row_for_every_model(fits: ModuleType) -> None:
    page = text_of(DOCS / "models.md")
    body = page.split(fits.BEGIN)[1].split(fits.END)[0]
    assert re.findall(r"^\| `(.+?)` ", body, re.MULTILINE) == [model.name for model in fits.MODELS]


def test_a_row_of_the_sizing_is_what_the_estimator_says(fits: ModuleType) -> None:
    sizing = tool("cluster_sizing")
    (known,) = [model for model in fits.MODELS if model.name == "Qwen/Qwen2.5-VL-7B-Instruct"]
    size = sizing.compute(known, fits.built)
    assert size.at_once(24, 1) < size.at_once(24, 2) < size.at_once(80, 2)
    assert sizing.row(size) in text_of(DOCS / "cluster.md").splitlines()


# The site ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.html", '<script src="https://cdn.example/x.js"></script>', ["https://cdn.example/x.js"]),
        ("a.html", '<link rel="stylesheet" href="//fonts.example/c.css">', ["//fonts.example/c.css"]),
        ("a.html", '<style>@import "https://x.example/a.css";</style>', ["https://x.example/a.css"]),
        ("a.html", '<p style="background:url(https://x.example/a.png)">', ["https://x.example/a.png"]),
        ("a.css", "a{background:url('http://x.example/b.png')}", ["http://x.example/b.png"]),
        ("a.html", '<a href="https://example.org">read on</a><img src="data:image/png;base64,AA">', []),
        ("a.html", '<link rel="canonical" href="https://example.org/"><script src="js/a.js"></script>', []),
    ],
)
def test_what_a_page_loads_from_elsewhere_is_found(
    tmp_path: Path, name: str, text: str, found: list[str]
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    check = [sys.executable, str(DOCS / "tools" / "check_site.py"), str(tmp_path)]
    done = subprocess.run(check, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == (1 if found else 0), done.stdout + done.stderr
    for address in found:
        assert f"{name} loads {address}" in done.stdout
