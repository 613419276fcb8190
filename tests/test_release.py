"""What a release promises: its version, its changelog, its metadata, its requirements."""

from __future__ import annotations

import email
import email.message
import re
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import vlm_nb

ROOT = Path(__file__).parent.parent
packaging_requirements = pytest.importorskip("packaging.requirements")
Requirement = packaging_requirements.Requirement
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {"pandas", "openai", "structured", "peft", "heif", "export", "vllm", "ray", "test", "dev"}


@pytest.fixture(scope="module")
def described(wheel: zipfile.ZipFile) -> email.message.Message:
    return email.message_from_bytes(wheel.read(f"vlm_nb-{vlm_nb.__version__}.dist-info/METADATA"))


def constraints(name: str) -> dict[str, str]:
    """Package → version, as a constraints file pins them."""
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return {canonical(pin.split("==")[0]): pin.split("==")[1] for pin in lines if "==" in pin}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# Version ------------------------------------------------------------------------------------------------


def test_one_version_everywhere(described: email.message.Message, built: Path) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", vlm_nb.__version__)
    assert described["Version"] == vlm_nb.__version__
    assert {path.name for path in built.iterdir()} == {
        f"vlm_nb-{vlm_nb.__version__}-py3-none-any.whl",
        f"vlm_nb-{vlm_nb.__version__}.tar.gz",
    }


def test_the_changelog_begins_with_this_version() -> None:
    sections = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    named = re.match(r"(\d+\.\d+\.\d+) \((unreleased|\d{4}-\d{2}-\d{2})\)\n", sections[0])
    assert named is not None
    assert named[1] == vlm_nb.__version__
    assert re.search(r"^- ", sections[0], re.MULTILINE), "the section says nothing"


# Metadata -----------------------------------------------------------------------------------------------


def test_metadata(described: email.message.Message) -> None:
    assert described["Name"] == "vlm_nb"
    assert described["Requires-Python"] == ">=3.11"
    assert described["License-Expression"] == "Apache-2.0"
    assert described.get_all("License-File") == ["LICENSE"]
    assert set(described.get_all("Provides-Extra") or ()) >= EXTRAS
    assert described["Description-Content-Type"] == "text/markdown"
    assert described.get_payload(decode=True).decode() == (ROOT / "README.md").read_text(encoding="utf-8")


def test_classifiers_are_known_and_true(described: email.message.Message) -> None:
    trove = pytest.importorskip("trove_classifiers")
    named = described.get_all("Classifier") or []
    assert not set(named) - trove.classifiers
    assert "Typing :: Typed" in named
    assert not [name for name in named if name.startswith("License ::")], "PEP 639: the expression says it"
    minors = [int(name.rsplit(".")[-1]) for name in named if re.search(r"Python :: 3\.\d+$", name)]
    assert minors == list(range(11, max(minors) + 1)), "from the oldest Python on, none left out"
    assert sys.version_info.minor in minors, "the tests run on a Python that the classifiers name"


# Requirements -------------------------------------------------------------------------------------------


def requirements(extra: str = "") -> list[tuple[str, object]]:
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return [(line, Requirement(line)) for line in lines]


def test_every_dependency_has_a_lower_bound_and_no_upper_one() -> None:
    for extra in ("", *sorted(EXTRAS - {"test", "dev"})):
        for line, wanted in requirements(extra):
            operators = {bound.operator for bound in wanted.specifier}
            assert operators == {">="}, f"{line}: a library pins nothing; constraints.txt does"


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt"])
def test_the_tested_versions_are_allowed(name: str) -> None:
    pinned = constraints(name)
    for line, wanted in requirements():
        version = pinned.get(canonical(wanted.name))
        assert version is not None, f"{name} does not pin {line}"
        assert wanted.specifier.contains(version), f"{name} pins {version}, pyproject.toml asks for {line}"


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    """What pyproject.toml promises is what `make test-oldest` runs on; where not, a comment says why."""
    text = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8")
    pinned, explained = (
        constraints("constraints-oldest.txt"),
        set(re.findall(r"^(\S+)==\S+  # \S", text, re.M)),
    )
    for extra in ("", "pandas", "openai", "structured", "peft", "export"):
        for line, wanted in requirements(extra):
            (bound,) = wanted.specifier
            tested = pinned[canonical(wanted.name)]
            same = parts(tested) == parts(bound.version)
            assert same or wanted.name in explained, f"{line}, but the oldest tested is {tested}"


def parts(version: str) -> list[int]:
    """``9.0`` and ``9.0.0`` are one version."""
    return [*map(int, version.split(".")), 0, 0][:3]


def test_what_is_installed_here_satisfies_the_requirements() -> None:
    """As `pip check`, for this package and what it needs, extras of the tests included."""
    wrong, seen = [], set()
    todo = [line for extra in ("", "pandas", "openai", "structured") for line, _ in requirements(extra)]
    while todo:
        wanted = Requirement(todo.pop())
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        key = (canonical(wanted.name), str(wanted.specifier))
        if key in seen:
            continue
        seen.add(key)
        found = metadata.distribution(wanted.name)
        if not wanted.specifier.contains(found.version, prereleases=True):
            wrong.append(f"{wanted} is asked for, {found.version} is installed")
        todo += found.requires or []
    assert len(seen) > 20
    assert not wrong
