"""What is public is pinned: a new name is a decision, a lost one breaks somebody."""

from __future__ import annotations

import pytest

import vlm_nb

EXPECTED = {
    "IMAGE_TOKEN",
    "GenerationConfig",
    "GroundedPhrase",
    "Outcome",
    "Prediction",
    "VLM",
    "VLMError",
    "__version__",
    "current",
    "demo",
    "explore",
    "export",
    "ledger",
    "doctor",
    "load",
    "load_image",
    "loaded",
    "parse_grounding",
    "to_frame",
    "unload",
    "use",
}


def test_public_names_are_pinned() -> None:
    assert set(vlm_nb.__all__) == EXPECTED
    assert set(dir(vlm_nb)) == EXPECTED


def test_every_public_name_resolves_and_is_documented() -> None:
    for name in EXPECTED - {"__version__", "IMAGE_TOKEN"}:
        assert getattr(vlm_nb, name).__doc__, name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = vlm_nb.nonsense
