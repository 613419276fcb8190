"""Shared fixtures. Every test has its own cache and configuration folders, and no network beyond loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from release import built, wheel  # noqa: F401 - fixtures

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's ledger or settings."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("VLM_NB_CACHE_DIR", str(home / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))


@pytest.fixture(autouse=True)
def accessor_there() -> None:
    """Tests of ``%unload_ext`` take ``df.vlm`` away; every test begins with it."""
    from vlm_nb import accessor

    accessor.register()


@pytest.fixture
def fresh_registry() -> Iterator[None]:
    """No model is loaded before and after the test."""
    from vlm_nb import registry

    registry.unload_all()
    yield
    registry.unload_all()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip ``gpu`` tests, with the reason, without a CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def data() -> Path:
    """The folder of test data."""
    return Path(__file__).parent / "data"
