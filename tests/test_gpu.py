"""The transformers engine on a CUDA device: answers, graphs, quantisation, and memory (``make gpu``)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from engine_helpers import about, loaded, noise
from engine_models import make_qwen
from flight import Flight, assert_a_cancelled_row_leaves, assert_all_same, flying, stir
from test_compiling import DEMO, QUESTIONS, QWEN, about_scene, mixed
from test_scheduler import of_family
from tiny_models import make_tiny

from vlm_nb.engines.base import Engine, generate
from vlm_nb.engines.hf import devices, windows
from vlm_nb.engines.hf.encoding import Encoded
from vlm_nb.engines.hf.lane import Lane
from vlm_nb.request import Completion, Request

# What other packages warn of on a GPU is not known here, and no failure.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]
GPU = "cuda:0"
MODELS = pytest.mark.parametrize("folder", [DEMO, QWEN], ids=["demo", "trained"])
MIB = 2**20


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """cuBLAS keeps workspaces once it was used; what is measured begins with them there."""
    with on_gpu(DEMO) as engine:
        list(generate(engine, scenes(2)))


def on_gpu(folder: Path | str, **options: Any) -> Any:
    return loaded(folder, **{"device_map": GPU, **options})


def in_flight(folder: Path | str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    return flying(folder, monkeypatch, **{"device_map": GPU, "max_batch_size": 4, **options})


def scenes(count: int, **generation: Any) -> list[Request]:
    """Questions of several kinds about squares of three sizes."""
    settings = {"max_new_tokens": 20, **generation}
    return [about_scene(n, 28 * (3 + n % 3), QUESTIONS[n % 3], **settings) for n in range(count)]


def answers(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
    """All answers, none of them an error."""
    found = dict(generate(engine, requests))
    assert [found[n].error for n in range(len(requests))] == [None] * len(requests)
    return [found[n] for n in range(len(requests))]


def texts(engine: Engine, requests: Sequence[Request]) -> list[str | None]:
    return [answer.text for answer in answers(engine, requests)]


# Equal to single answers ------------------------------------------------------------------------------------


@MODELS
@pytest.mark.parametrize("reuse", [False, True], ids=["reuse off", "reuse on"])
def test_rows_that_join_and_leave_answer_as_single_requests_do(
    folder: str, reuse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_flight(folder, monkeypatch, engine_args={"reuse": reuse}) as flight:
        requests = mixed(10, flight)
        expected = [flight.single(request) for request in requests]
        assert_all_same(
            flight.run(requests[:7], late={3: requests[7], 6: requests[8], 11: requests[9]}), expected
        )
        again = flight.run(requests)
        assert_all_same(again, expected)
        assert any(answer.completion.usage.cached_tokens for answer in again) == reuse
        assert {1, 2, 3, 4} <= set(flight.widths)
        assert flight.loop.block is None
        assert flight.model.device.type == torch.device(GPU).type


def test_windows_that_attend_together_answer_as_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``single`` goes through the model's own generate, window by window."""
    made: list[int] = []
    plain = windows._by_length
    monkeypatch.setattr(windows, "_by_length", lambda *args: made.append(1) or plain(*args))
    with in_flight(make_tiny("qwen2_5_vl", tmp_path / "qwen"), monkeypatch) as flight:
        stir(flight)
        requests = [of_family("qwen2_5_vl", n) for n in range(6)]
        found = flight.run(requests)
        assert made
        assert_all_same(found, [flight.single(request) for request in requests])


@pytest.mark.timeout(600)
@MODELS
def test_two_graphs_answer_as_single_requests_do(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with in_flight(folder, monkeypatch, compile=True) as flight:
        assert flight.backend._loaded.info.details["compile"].startswith("2 graphs in ")
        requests = mixed(10, flight)
        found = flight.run(requests[:8], late={3: requests[8], 9: requests[9]})
        assert_all_same(found, [flight.single(request) for request in requests])
        made = flight.loop._compiled
        assert made is not None
        assert (made.refused, made.graphs) == (None, 2)


@pytest.mark.timeout(600)
@MODELS
def test_a_row_alone_is_played_back_and_answers_as_it_does_without(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It outgrows two recordings, and others join it and leave."""
    with endless(folder, monkeypatch, compile=True) as flight:
        assert flight.backend._loaded.info.details["CUDA graphs"].startswith("a row alone, up to ")
        played: list[int] = []
        plain = Lane.decode
        monkeypatch.setattr(
            Lane, "decode", lambda self, block, *args: played.append(block.width) or plain(self, block, *args)
        )
        first = about_scene(0, 84, max_new_tokens=600, cut_repeats=False)
        others = [about_scene(n, 84, QUESTIONS[n], max_new_tokens=6) for n in (1, 2)]
        found = flight.run([first], late={8: others[0], 30: others[1]})
        assert_all_same(found, [flight.single(request) for request in (first, *others)])
        assert len(played) > 500
        assert max(played) > 512
        assert flight.loop._compiled.refused is None


def test_a_cancelled_row_leaves_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with in_flight(DEMO, monkeypatch) as flight:
        requests = [about_scene(n, 84, max_new_tokens=20) for n in range(4)]
        assert_a_cancelled_row_leaves(flight, requests, after=4)


def test_cancel_through_the_engine_ends_one_answer_only() -> None:
    with on_gpu(DEMO) as engine:
        keep = scenes(3)
        expected = texts(engine, keep)
        doomed = engine.submit(
            about_scene(9, 84, max_new_tokens=1500, min_new_tokens=1500, cut_repeats=False)
        )
        kept = [engine.submit(request) for request in keep]
        next(doomed.events())
        doomed.cancel()
        assert doomed.result(60).usage.finish_reason == "cancelled"
        assert [ticket.result(60).text for ticket in kept] == expected


def test_two_engines_share_a_gpu() -> None:
    requests = scenes(12)
    step = [about_scene(n, 96, QUESTIONS[n % 3], max_new_tokens=20) for n in range(12)]
    with on_gpu(DEMO) as first, on_gpu(QWEN) as second:
        alone = texts(first, requests), texts(second, step)
        tickets = [
            (first.submit(one), second.submit(other)) for one, other in zip(requests, step, strict=True)
        ]
        found = [[ticket.result(120).text for ticket in column] for column in zip(*tickets, strict=True)]
    assert found == list(alone)


def test_pinned_inputs_are_used_and_change_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with in_flight(DEMO, monkeypatch) as flight:
        requests = scenes(6)
        expected = [flight.single(request) for request in requests]
        tickets = flight.admit(*requests)
        waiting = [tensor for row in flight.loop.waiting for tensor in row.encoded.inputs.values()]
        assert waiting
        assert all(tensor.is_pinned() for tensor in waiting)
        while flight.backend.running:
            flight.step()
        assert_all_same([flight.answer(ticket) for ticket in tickets], expected)
        monkeypatch.setattr(Encoded, "pin", lambda self: None)
        assert_all_same(flight.run(requests), expected)


def test_flash_attention_answers_mostly_as_sdpa_does() -> None:
    """Both in bf16, where late digits differ."""
    pytest.importorskip("flash_attn", reason="flash-attn is not installed")
    requests = scenes(9)
    with on_gpu(DEMO, dtype="bfloat16") as engine:
        expected = texts(engine, requests)
    with on_gpu(DEMO, dtype="bfloat16", attn_implementation="flash_attention_2") as engine:
        assert engine.info.details["attention"] == "flash_attention_2"
        found = texts(engine, requests)
    assert sum(one == other for one, other in zip(found, expected, strict=True)) >= 6


# Quantised --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of some size: 8 KiB of keys and values a token in fp32."""
    return make_qwen(tmp_path_factory.mktemp("wide"), hidden=512, layers=4)


@pytest.mark.parametrize("way", ["8bit", "4bit"])
def test_quantised_models_answer_and_are_smaller(wide: Path, way: str) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    sizes = []
    for quantization in (None, way):
        with on_gpu(wide, dtype="bfloat16", quantization=quantization) as engine:
            report = engine.memory
            sizes.append((engine.info.memory, report.loaded - report.before))
            requests = [about(noise(84, 56, seed=n), max_new_tokens=8, min_new_tokens=8) for n in range(6)]
            assert {answer.usage.new_tokens for answer in answers(engine, requests)} == {8}
    assert engine.info.quantization == way
    (plain, plainly_held), (small, held) = sizes
    assert small < 0.85 * plain
    assert held < plainly_held


@pytest.mark.parametrize("way", ["8bit", "4bit"])
def test_the_quantised_demo_model_still_reads_its_scenes(way: str) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    requests = scenes(9)
    with on_gpu(DEMO, dtype="bfloat16") as engine:
        expected = texts(engine, requests)
    with on_gpu(DEMO, dtype="bfloat16", quantization=way) as engine:
        found = texts(engine, requests)
    assert sum(one == other for one, other in zip(found, expected, strict=True)) >= 3


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["8bit", "4bit"])
def test_a_quantised_model_is_compiled_or_says_why_not(wide: Path, way: str) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    with on_gpu(wide, dtype="bfloat16", quantization=way, compile=True, wait=500) as engine:
        said = engine.info.details["compile"]
        print(f"{way}: {said}; CUDA graphs: {engine.info.details.get('CUDA graphs')}")
        assert said.startswith("2 graphs" if engine.capabilities.compiled else "no: ")
        answers(engine, [about(noise(84, 56, seed=n), max_new_tokens=8) for n in range(6)])


# Memory -----------------------------------------------------------------------------------------------------


def test_unloading_gives_the_memory_back(wide: Path) -> None:
    before = allocated()
    with on_gpu(wide, dtype=None) as engine:
        assert engine.info.device == GPU
        answers(engine, [about(noise(84, 56, seed=n), max_new_tokens=20) for n in range(12)])
        report = engine.memory
        assert report.device == GPU
        assert 0.9 * engine.info.memory < report.loaded - report.before < 1.5 * engine.info.memory + 4 * MIB
        assert engine.info.details["estimated bytes"] == pytest.approx(engine.info.memory, rel=0.15)
    assert engine.memory.after <= report.before + 4 * MIB
    assert allocated() <= before + 4 * MIB


def allocated() -> int:
    devices.release_memory()
    return torch.cuda.memory_allocated(GPU)


@contextmanager
def room_of(size: int) -> Iterator[None]:
    """Let the process take ``size`` bytes of the GPU's memory more than it holds; the engine is not told."""
    devices.release_memory()
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(GPU) + size) / total, GPU)
    try:
        with patch.object(devices, "process_share", return_value=1.0):
            yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)


def test_the_process_share_of_the_memory_is_known() -> None:
    devices.release_memory()
    total, held = torch.cuda.get_device_properties(GPU).total_memory, torch.cuda.memory_reserved(GPU)
    torch.cuda.set_per_process_memory_fraction((held + 64 * MIB) / total, GPU)
    try:
        assert devices.free_memory(torch.device(GPU)) <= held + 64 * MIB
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)
    assert devices.free_memory(torch.device(GPU)) > held + 64 * MIB


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_gpu_that_the_user_s_thread_has_chosen_is_taken() -> None:
    torch.cuda.set_device(1)
    try:
        for options in ({"device_map": None}, {"device_map": "cuda"}):
            with on_gpu(DEMO, compile=True, **options) as engine:
                assert engine.info.device == "cuda:1"
                answers(engine, scenes(3))
    finally:
        torch.cuda.set_device(0)


@contextmanager
def endless(folder: Path | str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[Flight]:
    """A model that never says the end."""
    with in_flight(folder, monkeypatch, **options) as flight:
        flight.never_end(monkeypatch)
        yield flight


@pytest.mark.parametrize("reuse", [False, True], ids=["reuse off", "reuse on"])
def test_out_of_memory_at_prefill_leaves_no_request_unanswered(
    wide: Path, reuse: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Five prompts together take more than 200 MiB, one of them about 45."""
    caplog.set_level(logging.INFO, logger="vlm_nb")
    requests = [about(question=f"{n}" * 1500, max_new_tokens=6) for n in range(8)]
    with endless(wide, monkeypatch, max_batch_size=8, engine_args={"reuse": reuse}) as flight:
        expected = [flight.single(request) for request in requests]
        with room_of(128 * MIB):
            found = flight.run(requests)
        assert flight.backend.slots < 8
        assert_all_same(found, expected)
    assert "out of memory at prefill" in caplog.text


def test_out_of_memory_in_a_decode_step_leaves_no_request_unanswered(
    wide: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The keys and values of all rows take 80 MiB in the end."""
    caplog.set_level(logging.INFO, logger="vlm_nb")
    requests = [about(question=f"{n} " * 8, max_new_tokens=400, cut_repeats=False) for n in range(16)]
    with endless(wide, monkeypatch, max_batch_size=16) as flight:
        with room_of(48 * MIB):
            found = flight.run(requests)
        assert flight.backend.slots < 16
        assert max(flight.widths) == 16
    assert [answer.completion.error for answer in found] == [None] * 16
    assert {answer.completion.usage.new_tokens for answer in found} == {400}
    assert "out of memory while decoding" in caplog.text


def test_the_engine_goes_on_after_it_ran_out_of_memory(wide: Path) -> None:
    requests = [about(question=f"{n}" * 1500, max_new_tokens=6) for n in range(8)]
    with on_gpu(wide, max_batch_size=8, engine_args={"reuse": False}) as engine:
        before = texts(engine, requests)
        with room_of(128 * MIB):
            assert texts(engine, requests) == before
        assert texts(engine, requests) == before
