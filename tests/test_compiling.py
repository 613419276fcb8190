"""``compile=True``: two graphs serve all numbers of rows and columns, and answers are what they are without.

"traced" graphs run operation by operation, so that the default suite can tell whether one graph fits all;
"compiled" ones are made by this machine's C++ compiler (``make test-slow``).
"""

from __future__ import annotations

import gc
import shutil
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_helpers import about, ignore
from engine_models import make_qwen
from flight import Flight, assert_a_cancelled_row_leaves, assert_all_same, flying
from test_scheduler import of_family
from tiny_models import make_tiny

import vlm_nb
from vlm_nb import demo
from vlm_nb.engines.base import Progress
from vlm_nb.engines.hf import compiling, gate
from vlm_nb.engines.hf.leftpad import Block
from vlm_nb.engines.hf.room import RoomyLayer
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.engines.transformers import TransformersBackend
from vlm_nb.errors import Cancelled, OptionError
from vlm_nb.request import Request

# Some processors meet numpy 2 with this; nothing to do with graphs.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
for_real = (pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"))
QWEN = str(Path(__file__).parent / "tiny_trained" / "qwen3_vl")
DEMO = str(demo.weights_path())
QUESTIONS = ("Describe this image.", "How many objects are there?", "Is there a red circle?")


def only_trace(patch: pytest.MonkeyPatch) -> None:
    """Let graphs run as they were traced."""

    def traced(self: compiling.Inductor, graph: Any, inputs: Any) -> Any:
        return graph.forward

    patch.setattr(compiling.Inductor, "compile", traced)


@contextmanager
def compiled(folder: Path | str, *, traced: bool, **options: Any) -> Iterator[Flight]:
    with pytest.MonkeyPatch.context() as patch:
        if traced:
            only_trace(patch)
        with flying(folder, patch, max_batch_size=4, compile=True, **options) as flight:
            yield flight


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((DEMO, True), id="demo-traced"),
        pytest.param((DEMO, False), id="demo-compiled", marks=for_real),
        pytest.param((QWEN, False), id="trained-compiled", marks=for_real),
    ],
)
def flight(request: pytest.FixtureRequest) -> Iterator[Flight]:
    """A model, compiled once for its tests."""
    folder, traced = request.param
    with compiled(folder, traced=traced) as flight:
        yield flight


@pytest.fixture
def steady(flight: Flight, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flight]:
    """The compiled model; nothing more is compiled, and no step may go around the graphs."""
    monkeypatch.setattr(Block, "decode", None)
    yield flight
    made = flight.loop._compiled
    assert made is not None
    assert (made.refused, made.graphs) == (None, 2)


def about_scene(n: int, side: int, question: str = QUESTIONS[0], **generation: Any) -> Request:
    """Sides that every processor here takes as they are."""
    return about(
        demo.draw_scene(n).image.convert("RGB").resize((side, side)), question=question, **generation
    )


def mixed(count: int, flight: Flight) -> list[Request]:
    """Several questions about squares of several sizes; answers of 1 to 24 tokens."""
    step = flight.grid
    return [
        about_scene(
            n, step * (3 + n % 3), QUESTIONS[n % 3] * (1 + n % 2), max_new_tokens=(1, 24, 9, 17, 5)[n % 5]
        )
        for n in range(count)
    ]


# Answers ----------------------------------------------------------------------------------------------------


def test_rows_that_join_and_leave_answer_as_single_requests_do(steady: Flight) -> None:
    requests = mixed(10, steady)
    found = steady.run(requests[:7], late={3: requests[7], 6: requests[8], 11: requests[9]})
    assert_all_same(found, [steady.single(request) for request in requests])
    assert {1, 2, 3, 4} <= set(steady.widths)
    assert len({tuple(answer.tokens) for answer in found}) > 5


def test_the_cache_grows_into_new_rooms(steady: Flight, monkeypatch: pytest.MonkeyPatch) -> None:
    steady.never_end(monkeypatch)
    step = steady.grid
    requests = [about_scene(n, 3 * step, max_new_tokens=160 - 50 * n, cut_repeats=False) for n in range(3)]
    found = steady.run(requests)
    assert_all_same(found, [steady.single(request) for request in requests])
    assert [len(answer.tokens) for answer in found] == [160, 110, 60]


def test_every_size_goes_through_one_of_the_two_graphs(steady: Flight) -> None:
    """Rooms that are full or about to be, and numbers that compilers take for special."""
    made, model = steady.loop._compiled, steady.model
    with steady.backend.context():
        for rows, columns, steps in (
            (1, 32, 70),
            (2, 32, 70),
            (8, 30, 40),
            (16, 16, 66),
            (31, 20, 3),
            (32, 31, 3),
        ):
            block = compiling._sample(model, rows, columns)
            for _ in range(steps):
                made.run(block, torch.full((rows, 1), 5))
            assert made.graphs == 2, (rows, columns)


def test_a_cancelled_row_leaves_and_the_others_go_on(steady: Flight) -> None:
    step = steady.grid
    requests = [about_scene(n, 3 * step, QUESTIONS[0], max_new_tokens=20) for n in range(4)]
    assert_a_cancelled_row_leaves(steady, requests, after=4)


def test_a_broken_off_step_is_taken_again(steady: Flight, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory: half of the rows go on, the others start again from what they have."""
    made, failed = steady.loop._compiled, []
    plain = compiling.Compiled.run

    def short(self: compiling.Compiled, block: Block, tokens: torch.Tensor, **options: Any) -> torch.Tensor:
        if len(tokens) > 2 and not failed:
            failed.append(len(tokens))
            raise torch.OutOfMemoryError("planted")
        return plain(self, block, tokens, **options)

    requests = mixed(6, steady)
    slots = steady.loop.slots
    with monkeypatch.context() as patch:
        patch.setattr(compiling.Compiled, "run", short)
        found = steady.run(requests)
    steady.loop.slots = slots
    assert failed
    assert made is steady.loop._compiled
    assert_all_same(found, [steady.single(request) for request in requests])


def test_status_says_what_was_compiled(steady: Flight) -> None:
    assert steady.backend._loaded.info.details["compile"].startswith("2 graphs in ")
    assert steady.backend.capabilities.compiled


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(gate.IN_FLIGHT - {"gemma3"}))
def test_families(kind: str, tmp_path: Path) -> None:
    with compiled(make_tiny(kind, tmp_path / kind), traced=True) as flight:
        made = flight.loop._compiled
        assert made is not None
        assert (made.refused, made.graphs) == (None, 2)
        requests = [of_family(kind, n) for n in range(6)]
        expected = [flight.single(request) for request in requests]
        assert_all_same(flight.run(requests[:4], late={2: requests[4], 4: requests[5]}), expected)
        assert made.graphs == 2


# Rather without ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_qwen(tmp_path_factory.mktemp("qwen"))


def broken(error: Exception) -> Any:
    def fail(*args: Any) -> Any:
        raise error

    return fail


def test_what_cannot_be_compiled_answers_without_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling.Inductor, "compile", broken(RuntimeError("no C++ compiler\nat all")))
    with pytest.warns(UserWarning, match=r"compile=True: no: .*no C\+\+ compiler") as seen:
        model = vlm_nb.load(str(folder), dtype="float32", compile=True)
    try:
        assert len(seen) == 1
        assert seen[0].filename == __file__
        assert not model.engine.capabilities.compiled
        assert model.engine.capabilities.in_flight
        assert "no C++ compiler" in model.info.details["compile"]
        assert model.ask(demo.draw_scene(0).image, "x", max_new_tokens=3).raw is not None
    finally:
        model.unload()


@pytest.mark.slow
def test_a_machine_without_a_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config, cpp_builder, utils

    def no_compiler(*args: Any) -> str:
        raise RuntimeError("no working C++ compiler found")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", no_compiler)
    uncached = config.patch(fx_graph_cache=False)
    with utils.fresh_cache(), uncached, flying(folder, monkeypatch, compile=True) as flight:
        assert "no working C++ compiler" in flight.backend._loaded.info.details["compile"]
        assert not flight.backend.capabilities.compiled


def test_scores_that_differ_are_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: compiling.Inductor, graph: Any, inputs: Any) -> Any:
        return lambda *args: (graph.forward(*args)[0] * 1.1,)

    monkeypatch.setattr(compiling.Inductor, "compile", wrong)
    with flying(folder, monkeypatch, compile=True) as flight:
        assert "differ from the model's own" in flight.backend._loaded.info.details["compile"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"engine_args": {"in_flight": False}}, "static batches"),
        ({"attn_implementation": "eager"}, "full attention"),
    ],
)
def test_models_that_are_not_compiled(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], reason: str
) -> None:
    backend = TransformersBackend(LoadSpec(model=str(folder), dtype="float32", compile=True, **options))
    with backend.context():
        backend.open(ignore, threading.Event())
    assert reason in backend._loaded.info.details["compile"]
    assert not backend.capabilities.compiled
    backend.close()


def test_a_step_that_fails_later_is_the_last_compiled_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    only_trace(monkeypatch)
    with flying(folder, monkeypatch, compile=True) as flight:
        made = flight.loop._compiled
        assert made.refused is None
        made._graph = broken(RuntimeError("planted"))
        requests = [about_scene(n, 56, max_new_tokens=6) for n in range(3)]
        assert_all_same(flight.run(requests), [flight.single(request) for request in requests])
        assert flight.backend._loaded.info.details["compile"].startswith("no: a compiled step failed")
    assert len([record for record in caplog.records if record.name == "vlm_nb"]) == 1


def test_a_step_that_fails_half_way_is_taken_again_without_its_graph(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some layers have the new column then, and must give it back."""
    only_trace(monkeypatch)
    with flying(folder, monkeypatch, compile=True) as flight:
        assert flight.loop._compiled.refused is None
        requests = [about_scene(n, 56 + 28 * n, max_new_tokens=12) for n in range(3)]
        expected = [flight.single(request) for request in requests]
        plain, calls = RoomyLayer.update, []

        def update(self: Any, *args: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == 8:
                raise RuntimeError("planted")
            return plain(self, *args, **options)

        monkeypatch.setattr(RoomyLayer, "update", update)
        assert_all_same(flight.run(requests), expected)
        assert "planted" in flight.backend._loaded.info.details["compile"]


def test_nothing_is_compiled_while_rows_wait(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are bound to the number of threads: with another one the model answers as it does without."""
    only_trace(monkeypatch)
    threads = torch.get_num_threads()
    with flying(folder, monkeypatch, compile=True) as flight:
        requests = [about_scene(n, 56, max_new_tokens=6) for n in range(3)]
        try:
            torch.set_num_threads(threads + 1)
            found = flight.run(requests)
        finally:
            torch.set_num_threads(threads)
        assert_all_same(found, [flight.single(request) for request in requests])
        assert "have changed since" in flight.backend._loaded.info.details["compile"]


@pytest.mark.parametrize("engine", ["vllm", "openai"])
def test_engines_that_cannot(engine: str) -> None:
    with pytest.raises(OptionError, match="compile"):
        vlm_nb.load("x", engine=engine, compile=True)


# Loading and unloading --------------------------------------------------------------------------------------


def test_compiling_is_shown_with_seconds_and_can_be_cancelled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, stop = threading.Event(), threading.Event()

    def waiting(self: compiling.Inductor, graph: Any, inputs: Any) -> Any:
        slow.wait(30)
        return graph.forward

    monkeypatch.setattr(compiling.Inductor, "compile", waiting)
    shown: list[str] = []

    def on_progress(report: Progress) -> None:
        shown.append(report.text)
        if report.text.startswith("compiling, graph 1 of 2, ") and not report.text.endswith(" 0 s"):
            stop.set()
            slow.set()

    from vlm_nb import registry

    with pytest.raises(Cancelled):
        registry.load(str(folder), dtype="float32", compile=True, on_progress=on_progress, cancelled=stop)
    assert "compiling, graph 1 of 2" in shown
    assert not any("2 of 2" in text for text in shown)
    assert registry.loaded() == []


def test_unloading_frees_model_and_graphs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_trace(monkeypatch)
    with flying(folder, monkeypatch, compile=True) as flight:
        flight.run([about_scene(0, 56, max_new_tokens=3)])
        kept = [
            weakref.ref(part) for part in (flight.model, flight.loop._compiled, flight.loop._compiled._graph)
        ]
    gc.collect()
    assert [part() for part in kept] == [None, None, None]


@pytest.mark.slow
def test_many_models_may_be_compiled_one_after_the_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch compiles one function so many times only; each model has one of its own."""
    only_trace(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(torch._dynamo.config.recompile_limit // 2 + 1):
            with flying(folder, monkeypatch, compile=True) as flight:
                assert flight.backend.capabilities.compiled
