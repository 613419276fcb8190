"""``vlm_nb.doctor()``: what it reports, how it shows, and what it does where things are missing."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import vlm_nb
from vlm_nb import diagnosis, extras, machine
from vlm_nb.report import Report


@pytest.fixture(scope="module")
def report() -> Report:
    """The report of this machine."""
    return vlm_nb.doctor()


def test_it_knows_versions_device_memory_and_caches(report: Report) -> None:
    facts = report.facts()
    assert facts["Versions"]["vlm_nb"] == vlm_nb.__version__
    assert facts["Versions"]["torch"][0].isdigit()
    assert "cores" in facts["Device"]["cpu"]
    assert "GB free of" in facts["Device"]["memory"]
    assert "bitsandbytes" in facts["Device"]["quantisation"]
    assert facts["Front end"]["shell"]
    assert facts["Caches and settings"]["models"]
    assert "torchvision" in facts["Optional"]


def test_it_is_text_and_html(report: Report) -> None:
    bundle = report._repr_mimebundle_()
    assert bundle["text/plain"] == str(report) == repr(report)
    assert "<th" in bundle["text/html"]


def test_the_module_named_as_the_function_does_not_hide_it() -> None:
    code = "import vlm_nb, vlm_nb.diagnosis, vlm_nb.magics.manage; assert callable(vlm_nb.doctor)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_importing_it_loads_no_torch() -> None:
    code = (
        "import sys, vlm_nb.diagnosis, vlm_nb.machine as m\n"
        "m.memory(), m.cached_models()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_missing_packages_come_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = diagnosis.version_of
    gone = {"accelerate", "pandas", "ipykernel"}
    monkeypatch.setattr(diagnosis, "version_of", lambda name: None if name in gone else real(name))
    report = diagnosis.doctor()
    assert ("accelerate is not installed", "pip install accelerate") in report.advice
    assert report.facts()["Versions"]["accelerate"] == "missing"
    assert 'pip install "pandas>=2.2"' in report.facts()["Optional"]["pandas"]
    assert "! accelerate is not installed:  pip install accelerate" in str(report)


def test_hints_name_the_packages_of_the_extras() -> None:
    root = Path(vlm_nb.__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    declared = project["optional-dependencies"]
    assert {name: list(needed) for name, needed in extras.EXTRAS.items()} == {
        name: declared[name] for name in declared.keys() - {"test", "docs", "dev"}
    }
    texts = [*root.glob("vlm_nb/**/*.py"), *root.glob("docs/*.md"), root / "README.md"]
    assert not [path for path in texts if re.search(r"install ['\"]vlm_nb\[", path.read_text())]
    hints = {extras.command(name) for name in extras.EXTRAS}
    quoted = [m for path in texts for m in re.findall(r'`(pip install ".*?)`', path.read_text())]
    assert quoted
    assert hints.issuperset(quoted)


def broken(name: str, real: Any) -> Any:
    """An import function for which ``name`` fails."""

    def load(module: str, *args: Any) -> Any:
        if module == name:
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(module, *args)

    return load


def test_a_broken_torchvision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = diagnosis.version_of
    monkeypatch.setattr(
        diagnosis, "version_of", lambda name: "0.28.0" if name == "torchvision" else real(name)
    )
    monkeypatch.setattr(diagnosis.importlib, "import_module", broken("torchvision", __import__))
    text = diagnosis.doctor().facts()["Optional"]["torchvision"]
    assert text == "0.28.0, does not import (RuntimeError); it is not used"


def test_a_broken_bitsandbytes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis.importlib, "import_module", broken("bitsandbytes", __import__))
    report = diagnosis.doctor()
    assert report.facts()["Device"]["quantisation"].startswith("none: bitsandbytes does not import")
    assert any(command == "pip install --upgrade bitsandbytes" for _, command in report.advice)


def test_offline_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in diagnosis.doctor().facts()["Caches and settings"]["network"]


def test_the_cache_is_where_hugging_face_keeps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert machine.model_cache() == Path(constants.default_cache_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert machine.model_cache() == tmp_path / "hub"


@pytest.mark.parametrize(
    ("count", "text"), [(None, "unknown"), (0, "0 MB"), (31_400_000, "31 MB"), (5_900_000_000, "5.9 GB")]
)
def test_bytes_read_well(count: int | None, text: str) -> None:
    assert machine.gigabytes(count) == text


def test_reports_escape_what_they_show() -> None:
    report = Report()
    report.section("<b>", "head").add("<script>", None)
    report.advice.append(("<i>", "<u>"))
    html = report._repr_mimebundle_()["text/html"]
    assert not any(tag in html for tag in ("<b>", "<script>", "<i>", "<u>"))
    assert "&lt;script&gt;" in html
