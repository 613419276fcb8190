"""The step of a row alone, recorded: on a CPU by a recorder that plays operations back at fixed addresses.

A CUDA graph does the same with a GPU's operations (``test_gpu.py``): no Python runs when it is played.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from flight import Flight, assert_all_same, flying
from test_compiling import DEMO, QUESTIONS, QWEN, about_scene, mixed, only_trace
from torch.utils._python_dispatch import TorchDispatchMode

from vlm_nb import demo
from vlm_nb.engines.hf import compiling, lane, packed, step
from vlm_nb.engines.hf.compiling import Compiled
from vlm_nb.engines.hf.lane import Lane

OURS = {step._node: step._attend, packed._node: packed._product}
LENGTHS = (64, 96, 128)


class Recorder(TorchDispatchMode):
    """Keeps every operation with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled graphs run as ever, so that their operations are seen."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in OURS:  # what they do inside is recorded
            with self:
                return OURS[func](*args)
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def play(self) -> None:
        for func, args, kwargs, out in self.calls:
            again = func(*args, **kwargs)
            parts = zip(_tensors(out), _tensors(again), strict=True)
            for old, new in parts:
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _tensors(out: Any) -> list[torch.Tensor]:
    return [
        part for part in (out if isinstance(out, tuple | list) else [out]) if isinstance(part, torch.Tensor)
    ]


def record(steps: Mapping[int, lane.Play]) -> dict[int, lane.Play]:
    """As ``lane.record``."""

    def recorded(one: lane.Play) -> lane.Play:
        with Recorder() as recorder:
            scores = one()

        def play() -> torch.Tensor:
            recorder.play()
            return scores

        return play

    return {length: recorded(one) for length, one in steps.items()}


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Recordings on a CPU, of rows that are not too long for tests."""
    only_trace(monkeypatch)
    monkeypatch.setattr(lane, "record", record)
    monkeypatch.setattr(lane, "LENGTHS", LENGTHS)
    monkeypatch.setattr(compiling, "DEVICES", {"cpu"})
    return monkeypatch


@pytest.fixture(params=[DEMO, QWEN], ids=["demo", "trained"])
def flight(request: pytest.FixtureRequest, on_cpu: pytest.MonkeyPatch) -> Iterator[Flight]:
    with flying(request.param, on_cpu, max_batch_size=4, compile=True) as flight:
        assert (
            flight.backend._loaded.info.details["CUDA graphs"] == f"a row alone, up to {LENGTHS[-1]} tokens"
        )
        assert flight.loop._compiled.graphs == 2
        yield flight


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The columns of rows whose step was played."""
    columns: list[int] = []
    plain = Lane.decode

    def decode(self: Lane, block: Any, *args: Any) -> torch.Tensor:
        columns.append(block.width)
        return plain(self, block, *args)

    monkeypatch.setattr(Lane, "decode", decode)
    return columns


def test_one_row_after_the_other(flight: Flight, played: list[int]) -> None:
    """What the one before has left in the rooms is not seen."""
    for request in mixed(6, flight):
        assert_all_same(flight.run([request]), [flight.single(request)])
    assert played
    assert flight.loop._compiled.refused is None


def test_a_row_outgrows_one_recording_after_the_other_and_then_all(
    flight: Flight, played: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    flight.never_end(monkeypatch)
    request = about_scene(1, 3 * flight.grid, max_new_tokens=150, cut_repeats=False)
    assert_all_same(flight.run([request]), [flight.single(request)])
    assert played == list(range(played[0], LENGTHS[-1]))
    assert played[0] < LENGTHS[0]


def test_a_row_moves_in_once_and_its_scores_stay(flight: Flight, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    plain = Lane._settle
    monkeypatch.setattr(Lane, "_settle", lambda self, block: moved.append(block.width) or plain(self, block))
    made: Compiled = flight.loop._compiled
    with flight.backend.context():
        row = compiling._sample(flight.model, 1, 20)
        first, second = (made.decode(row, torch.full((1, 1), token)) for token in (5, 6))
        assert moved == [20]
        assert first.data_ptr() != second.data_ptr()
        assert not torch.equal(first, second)


def test_others_join_and_leave_and_the_row_goes_on_alone(
    flight: Flight, played: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    flight.never_end(monkeypatch)
    first = about_scene(0, 3 * flight.grid, max_new_tokens=60, cut_repeats=False)
    others = [about_scene(n, 3 * flight.grid, QUESTIONS[n], max_new_tokens=6) for n in (1, 2)]
    found = flight.run([first], late={8: others[0], 30: others[1]})
    assert_all_same(found, [flight.single(request) for request in (first, *others)])
    assert 2 in flight.widths
    jumps = [later - earlier for earlier, later in itertools.pairwise(played)]
    assert [jump for jump in jumps if jump != 1] == [6, 6]


def test_a_row_that_left_in_the_middle_leaves_nothing_behind(flight: Flight, played: list[int]) -> None:
    [ticket] = flight.admit(about_scene(0, 3 * flight.grid, QUESTIONS[0] * 2, max_new_tokens=20))
    for _ in range(5):
        flight.step()
    flight.backend.drop(ticket)
    request = about_scene(1, 3 * flight.grid, max_new_tokens=20)
    assert_all_same(flight.run([request]), [flight.single(request)])
    assert played


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (lambda patch: patch.setattr(lane, "record", _broken), "planted"),
        (lambda patch: patch.setattr(lane, "SHARE", 1e-12), "free memory"),
        (lambda patch: patch.setattr(lane, "record", _wrong), "differ from the model's own"),
    ],
    ids=["fails", "no room", "differs"],
)
def test_without_recordings_the_graphs_stay(
    on_cpu: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="vlm_nb")
    plant(on_cpu)
    with flying(DEMO, on_cpu, compile=True) as flight:
        said = flight.backend._loaded.info.details
        assert said["CUDA graphs"].startswith("no: ")
        assert reason in said["CUDA graphs"]
        assert said["compile"].startswith("2 graphs")
        assert flight.backend.capabilities.compiled
        request = about_scene(0, 84, max_new_tokens=6)
        assert_all_same(flight.run([request]), [flight.single(request)])
    assert reason in caplog.text


def _broken(steps: Any) -> Any:
    raise RuntimeError("planted")


def _wrong(steps: Mapping[int, lane.Play]) -> dict[int, lane.Play]:
    """Recordings of one length as if they were of all: the others' columns are read wrongly."""
    made = record(steps)
    return dict.fromkeys(made, lambda: 1.2 * made[LENGTHS[0]]())


def test_a_recording_that_fails_later_is_the_last(flight: Flight, monkeypatch: pytest.MonkeyPatch) -> None:
    made: Compiled = flight.loop._compiled
    request = about_scene(0, 3 * flight.grid, max_new_tokens=8)
    expected = flight.single(request)
    calls: list[int] = []
    plain = made._lane._plays

    def failing(play: lane.Play) -> lane.Play:
        def one() -> torch.Tensor:
            calls.append(1)
            if len(calls) == 3:
                raise RuntimeError("planted")
            return play()

        return one

    monkeypatch.setattr(made._lane, "_plays", {length: failing(play) for length, play in plain.items()})
    assert_all_same(flight.run([request]), [expected])
    assert "planted" in flight.backend._loaded.info.details["compile"]
    assert made.refused


def test_the_demo_model_is_not_recorded_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    only_trace(monkeypatch)
    with flying(str(demo.weights_path()), monkeypatch, compile=True) as flight:
        assert "CUDA graphs" not in flight.backend._loaded.info.details
