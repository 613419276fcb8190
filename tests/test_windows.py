"""Vision towers whose windows attend together: the numbers of one window at a time."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_helpers import noise
from flight import assert_all_same, flying, stir
from test_scheduler import of_family
from tiny_models import make_tiny
from torch.nn.functional import scaled_dot_product_attention

from vlm_nb.engines.hf import windows
from vlm_nb.engines.hf.prefill import prefill
from vlm_nb.request import ImageRef, Message, Request

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v")


@pytest.fixture(autouse=True)
def on_this_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "DEVICES", frozenset({"cpu"}))


@pytest.mark.parametrize("ends", [[0, 12], [0, 4, 8, 12], [0, 4, 7, 11, 12], [0, 5, 5, 12]])
def test_each_window_attends_to_itself(ends: list[int]) -> None:
    query, key, value = (torch.randn(1, 3, 12, 8) for _ in range(3))
    windows._seen.groups = {}
    places = torch.tensor(ends, dtype=torch.int32)
    for _ in range(2):  # the second time from what is known of these ends
        found, _ = windows.attend(None, query, key, value, None, scaling=0.3, cu_seq_lens_q=places)
        assert found.shape == (1, 12, 3, 8)
        for begin, end in itertools.pairwise(ends):
            own = (slice(None), slice(None), slice(begin, end))
            alone = scaled_dot_product_attention(query[own], key[own], value[own], scale=0.3)
            torch.testing.assert_close(found[:, begin:end], alone.transpose(1, 2))


def calls_of(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[int]:
    """The windows of each call of sdpa from ``module``."""
    calls: list[int] = []

    def counted(query: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        calls.append(len(query))
        return scaled_dot_product_attention(query, *args, **options)

    monkeypatch.setattr(module, "scaled_dot_product_attention", counted)
    return calls


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_families_answer_as_with_one_window_at_a_time(
    kind: str, reuse: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``single`` goes through the model's own generate, window by window."""
    calls = calls_of(monkeypatch, windows)
    with flying(make_tiny(kind, tmp_path / kind), monkeypatch, engine_args={"reuse": reuse}) as flight:
        stir(flight)
        requests = [of_family(kind, n) for n in range(6)]
        found = flight.run(requests)
        assert calls
        assert_all_same(found, [flight.single(request) for request in requests])
        names = {config._attn_implementation for config in windows._way.configs(flight.model)}
        assert names == {"sdpa"}


def test_windows_of_one_length_are_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = (noise(252, 140, seed=1), noise(140, 252, seed=2))
    parts = (ImageRef(0), ImageRef(1), "what?")
    request = Request(
        messages=(Message("user", parts),), images=images, processor_kwargs={"do_resize": False}
    )
    with flying(make_tiny("qwen2_5_vl", tmp_path / "qwen"), monkeypatch) as flight:
        [row] = [flight.loop.waiting[0] for _ in flight.admit(request)]
        calls = calls_of(monkeypatch, windows)
        with flight.backend.context():
            _, together = prefill(flight.model, [row], torch.device("cpu"))
            lengths = {windows_of: calls.count(windows_of) for windows_of in set(calls)}
            monkeypatch.setattr(windows, "DEVICES", frozenset())
            count = len(calls)
            _, one_by_one = prefill(flight.model, [row], torch.device("cpu"))
        assert len(calls) == count
        assert max(lengths) >= 4
        torch.testing.assert_close(together, one_by_one, atol=1e-4, rtol=1e-4)


def test_other_ways_to_attend_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = calls_of(monkeypatch, windows)
    folder = make_tiny("qwen2_5_vl", tmp_path / "qwen")
    with flying(folder, monkeypatch, attn_implementation="eager") as flight:
        flight.run([of_family("qwen2_5_vl", 1)])
    assert not calls
