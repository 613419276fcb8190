"""Where settings come from, and what a wrong one says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vlm_nb import config
from vlm_nb.errors import OptionError


@pytest.fixture(autouse=True)
def no_overrides() -> Iterator[None]:
    yield
    for name in list(config.overrides()):
        config.override(name, None)


def write(text: str) -> None:
    config.config_file().parent.mkdir(parents=True, exist_ok=True)
    config.config_file().write_text(text)


def test_file_then_environment_then_session(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.settings().max_new_tokens is None
    write("max_new_tokens = 10\nshow_progress = false\n")
    assert config.settings().max_new_tokens == 10
    assert config.settings().show_progress is False
    monkeypatch.setenv("VLM_NB_MAX_NEW_TOKENS", "20")
    assert config.settings().max_new_tokens == 20
    config.override("max_new_tokens", 30)
    assert config.settings().max_new_tokens == 30
    config.override("max_new_tokens", None)
    assert config.settings().max_new_tokens == 20


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_new_token = 3", "max_new_tokens"),
        ("max_new_tokens = 'many'", "max_new_tokens"),
        ("show_progress = 'perhaps'", "yes or no"),
        ("= broken", "cannot be read"),
    ],
)
def test_a_wrong_file_is_named(text: str, words: str) -> None:
    write(text)
    with pytest.raises(OptionError, match=words) as caught:
        config.settings()
    assert "config.toml" in str(caught.value)


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_NB_URL_TIMEOUT", "soon")
    with pytest.raises(OptionError, match="VLM_NB_URL_TIMEOUT"):
        config.settings()
