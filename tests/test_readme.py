"""Every code block of the README and the docs runs, or says why it does not.

A block in ```python or ```ipython is run in one IPython shell per page, top to bottom, in a folder that holds
the demo's sample images, unless the page itself gets them. A block after ``<!-- not run: reason -->``
is only compiled.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.interactiveshell import InteractiveShell

from vlm_nb import demo

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: [^>]+ -->\s*)?```(\w+)\n(.*?)```", re.DOTALL)


def blocks(page: Path) -> list[tuple[str, bool]]:
    """(code, whether it runs) of each Python block."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(code, not reason) for reason, language, code in found if language in ("python", "ipython")]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: str(p.relative_to(ROOT)))
@pytest.mark.usefixtures("fresh_registry")
def test_code_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "demo.copy_images()" not in page.read_text(encoding="utf-8"):
        demo.copy_images()
    shell = InteractiveShell.instance()
    shell.reset()
    for code, runs in blocks(page):
        if not runs:
            compile(TransformerManager().transform_cell(code), str(page), "exec")
            continue
        result = shell.run_cell(code)
        assert result.success, f"{page.name}:\n{code}\n{result.error_in_exec or result.error_before_exec!r}"


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_the_extension_is_loaded_in_a_cell_of_its_own(page: Path) -> None:
    for code, _ in blocks(page):  # a question below it would be taken for help
        assert "%load_ext" not in code or code.strip() == "%load_ext vlm_nb"


def test_shell_commands_name_real_make_targets() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"^make ([\w-]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert target in targets, f"{page.name} names `make {target}`, which the Makefile does not have"


def test_relative_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)} links to {link}"
