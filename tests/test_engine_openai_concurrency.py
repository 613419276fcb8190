"""The adaptive limit, as pure arithmetic on made-up time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_nb.engines.openai import OpenAIBackend
from vlm_nb.engines.remote.concurrency import AdaptiveConcurrency
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.errors import OptionError


def windows(control: AdaptiveConcurrency, count: int, *, overloaded: bool, busy: bool = True) -> list[int]:
    """Feed ``count`` windows of four answers each; return the limit after each."""
    limits = []
    for number in range(count):
        start = 1000.0 + number * 10 * control.adjust_every
        for part in (0.0, 0.1, 0.5, 1.0):
            at = start + part * control.adjust_every
            control.record(at, overloaded=overloaded, open_requests=control.limit if busy else 1)
        limits.append(control.limit)
    return limits


def test_starts_at_half_and_grows_to_the_maximum() -> None:
    control = AdaptiveConcurrency(50)
    assert control.limit == 25
    limits = windows(control, 6, overloaded=False)
    assert limits == sorted(limits)
    assert limits[-1] == 50


def test_what_a_load_asks_for_and_what_it_gets_otherwise() -> None:
    pytest.importorskip("openai")
    usual = OpenAIBackend(LoadSpec(model="m", engine="openai", base_url="vllm"))._control
    assert (usual.maximum, usual.limit, usual.error_threshold, usual.adjust_every) == (50, 25, 0.01, 5.0)
    asked = {"max_concurrency": 8, "error_threshold": 0.2, "adjust_every": 60.0}
    own = OpenAIBackend(LoadSpec(model="m", engine="openai", base_url="vllm", **asked))._control
    assert (own.maximum, own.limit, own.error_threshold, own.adjust_every) == (8, 4, 0.2, 60.0)
    with pytest.raises(OptionError, match="from 1"):
        OpenAIBackend(LoadSpec(model="m", engine="openai", base_url="vllm", max_concurrency=0))


def test_one_bad_window_is_forgiven_two_in_a_row_halve() -> None:
    control = AdaptiveConcurrency(40)
    assert windows(control, 1, overloaded=True) == [20]
    assert windows(control, 1, overloaded=True) == [10]


def test_recovers_only_after_two_good_windows() -> None:
    control = AdaptiveConcurrency(40)
    windows(control, 2, overloaded=True)
    assert windows(control, 3, overloaded=False) == [10, 12, 15]


def test_does_not_grow_where_the_limit_is_not_reached() -> None:
    control = AdaptiveConcurrency(50)
    assert windows(control, 5, overloaded=False, busy=False) == [25] * 5


def test_rare_errors_are_under_the_threshold() -> None:
    control = AdaptiveConcurrency(10, error_threshold=0.25)
    for at, overloaded in ((0.0, True), (1.0, False), (2.0, False), (5.0, False)):
        control.record(at, overloaded=overloaded, open_requests=5)
    assert control.limit == 6


def test_a_pause_allows_nothing_and_ends() -> None:
    control = AdaptiveConcurrency(8)
    control.pause(100.0, 3.0)
    control.pause(100.0, 1.0)
    assert [control.allowed(at) for at in (100.0, 102.9, 103.0)] == [0, 0, 4]
    assert control.resumes_in(101.0) == 2.0


@given(
    maximum=st.integers(1, 200),
    threshold=st.floats(0, 1),
    answers=st.lists(st.tuples(st.floats(0, 3), st.booleans(), st.integers(1, 200)), max_size=200),
)
def test_the_limit_stays_in_its_range(
    maximum: int, threshold: float, answers: list[tuple[float, bool, int]]
) -> None:
    control = AdaptiveConcurrency(maximum, threshold, 1.0)
    now = 0.0
    for wait, overloaded, open_requests in answers:
        now += wait
        before = control.limit
        control.record(now, overloaded=overloaded, open_requests=open_requests)
        assert 1 <= control.limit <= maximum
        assert before // 2 <= control.limit <= before + max(1, before // 4)


@given(maximum=st.integers(1, 200), before=st.lists(st.booleans(), max_size=30))
def test_whatever_came_before_trouble_ends_at_one_and_calm_at_the_maximum(
    maximum: int, before: list[bool]
) -> None:
    control = AdaptiveConcurrency(maximum)
    for overloaded in before:
        windows(control, 1, overloaded=overloaded)
    assert windows(control, 20, overloaded=True)[-1] == 1
    assert windows(control, 60, overloaded=False)[-1] == maximum


@pytest.mark.parametrize(
    "values", [{"maximum": 0}, {"maximum": 2.5}, {"error_threshold": 1.5}, {"adjust_every": 0}]
)
def test_impossible_settings(values: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="expected"):
        AdaptiveConcurrency(**values)  # type: ignore[arg-type]
