"""The engine's thread, its tickets and cancelling, on the scripted engine."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_helpers import about, ignore, noise, scripted, text

from vlm_nb.engines.base import MODEL_GATE, Engine, ModelGate, Ticket, generate, stream
from vlm_nb.engines.scripted import ScriptedBackend
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.errors import Cancelled, GenerationError, ModelUnloaded, OptionError
from vlm_nb.request import Completion

LONG = "word " * 400


def test_two_callers_at_once_get_their_own_answers():
    with scripted(lambda request: request.messages[0].text * 3, delay=0.001) as engine:
        answers: dict[str, list[str]] = {}

        def ask(name: str) -> None:
            answers[name] = [engine.submit(text(f"{name} {i} ")).result(20).text for i in range(20)]

        threads = [threading.Thread(target=ask, args=(name,)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert answers == {name: [f"{name} {i} " * 3 for i in range(20)] for name in ("a", "b")}


def test_events_are_the_deltas_and_then_the_completion():
    with scripted("one two three") as engine:
        *deltas, last = stream(engine, text())
        assert deltas == ["one", " two", " three"]
        assert isinstance(last, Completion)
        assert last.text == "one two three"
        assert last.usage.finish_reason == "stop"


def test_a_second_reader_of_an_answered_ticket_gets_the_completion():
    with scripted("one two") as engine:
        ticket = engine.submit(text())
        list(ticket.events())
        assert list(ticket.events()) == [ticket.result()]


def test_cancel_before_it_runs_during_and_after():
    with scripted(LONG, slots=1, delay=0.005) as engine:
        running, waiting = engine.submit(text()), engine.submit(text())
        waiting.cancel()
        assert waiting.result(5).usage.finish_reason == "cancelled"
        assert waiting.result().text == ""
        while not running.text:
            time.sleep(0.005)
        running.cancel()
        partial = running.result(5)
        assert partial.usage.finish_reason == "cancelled"
        assert partial.error is None
        assert LONG.startswith(partial.text)
        assert partial.text
        running.cancel()
        assert running.result() is partial


def test_interactive_requests_go_before_batch_ones():
    with scripted("a b c", slots=1, delay=0.02) as engine:
        order: list[str] = []
        first = engine.submit(text(interactive=False))
        batch = [engine.submit(text(interactive=False)) for _ in range(3)]
        mine = engine.submit(text(interactive=True))
        for name, ticket in (("mine", mine), ("first", first), *(("batch", t) for t in batch)):
            threading.Thread(target=lambda n=name, t=ticket: (t.result(10), order.append(n))).start()
        for ticket in batch:
            ticket.result(10)
        time.sleep(0.2)
        assert order.index("mine") < order.index("batch")


def test_an_abandoned_iterator_cancels_its_requests():
    made: list[Any] = []

    def requests() -> Iterator[Any]:
        for number in range(100):
            made.append(number)
            yield text(str(number))

    with scripted(LONG, slots=2, delay=0.002) as engine:
        submitted: list[Ticket] = []
        submit = engine.submit
        engine.submit = lambda *a, **k: submitted.append(submit(*a, **k)) or submitted[-1]
        answers = generate(engine, requests(), window=3)
        threading.Timer(0.3, lambda: [t.cancel() for t in submitted[:1]]).start()
        next(answers)
        answers.close()
        assert len(made) <= 4
        for ticket in submitted:
            assert ticket.result(5).usage.finish_reason == "cancelled"


def test_generate_is_lazy_complete_and_aligned():
    with scripted(lambda request: request.messages[0].text, slots=3) as engine:
        answers = dict(generate(engine, (text(str(i), interactive=False) for i in range(50))))
    assert {index: c.text for index, c in answers.items()} == {i: str(i) for i in range(50)}


def test_an_error_in_one_request_is_its_own():
    def script(request: Any) -> str:
        if "bad" in request.messages[0].text:
            raise KeyError("no such thing")
        return "good"

    with scripted(script) as engine:
        answers = dict(generate(engine, [text("a"), text("bad"), text("c")]))
        assert [answers[i].text for i in (0, 2)] == ["good", "good"]
        assert isinstance(answers[1].error, GenerationError)
        assert answers[1].error.__traceback__ is None


class Broken(ScriptedBackend):
    """Fails where the protocol promises that it does not."""

    def step(self) -> None:
        if any("break" in row.ticket.request.messages[0].text for row in self._rows):
            raise RuntimeError("boom")
        super().step()


def test_the_thread_survives_a_step_that_fails_and_each_ticket_has_an_error_of_its_own():
    engine = Engine(Broken(LoadSpec(model="x", engine_args={"slots": 4})), "broken")
    held = [engine.submit(text("break")) for _ in range(2)]
    errors = [ticket.result(5).error for ticket in held]
    assert [str(error) for error in errors] == ["the engine failed: RuntimeError: boom"] * 2
    assert errors[0] is not errors[1]
    assert engine.submit(text("fine")).result(5).text == "ok"
    engine.close()


def test_a_backend_that_cannot_start_says_so_to_all_who_ask():
    class Headless(ScriptedBackend):
        def context(self) -> Any:
            raise ImportError("no libgomp")

    engine = Engine(Headless(LoadSpec(model="x")), "headless")
    with pytest.raises(GenerationError, match="no libgomp"):
        engine.load(ignore, threading.Event()).result(5)
    with pytest.raises(GenerationError, match="no libgomp"):
        engine.submit(text())


def test_unload_fails_open_tickets_and_later_ones():
    with scripted(LONG, slots=1, delay=0.005) as engine:
        running, waiting = engine.submit(text()), engine.submit(text())
        while not running.text:
            time.sleep(0.005)
        assert engine.close(timeout=5)
        for ticket in (running, waiting):
            assert isinstance(ticket.result(1).error, ModelUnloaded)
        assert running.result().text
        assert running.result().error is not waiting.result().error
        with pytest.raises(ModelUnloaded):
            engine.submit(text())
        assert engine.close(timeout=1)


def test_no_ticket_is_lost_between_submit_and_close():
    for _ in range(30):
        with scripted("a b c d", slots=2) as engine:
            tickets: list[Ticket] = []

            def pour(engine: Engine = engine, tickets: list[Ticket] = tickets) -> None:
                while True:
                    try:
                        tickets.append(engine.submit(text()))
                    except ModelUnloaded:
                        return

            thread = threading.Thread(target=pour)
            thread.start()
            time.sleep(0.003)
            engine.close()
            thread.join(5)
            assert tickets
            for ticket in tickets:
                assert ticket.result(2) is not None


def test_closing_cancels_a_load_under_way():
    backend = ScriptedBackend(LoadSpec(model="x", engine_args={"load_seconds": 30}))
    engine = Engine(backend, "slow")
    future = engine.load(ignore, threading.Event())
    time.sleep(0.1)
    started = time.monotonic()
    engine.close(timeout=10)
    assert time.monotonic() - started < 5
    assert isinstance(future.exception(1), Cancelled | ModelUnloaded)


def test_a_request_and_its_images_are_freed_when_it_is_answered():
    with scripted("fine") as engine:
        image = noise(28, 28)
        alive = weakref.ref(image)
        ticket = engine.submit(about(image))
        ticket.result(5)
        time.sleep(0.1)
        del ticket, image
        # Without a collection: a cycle would keep images until the next one.
        assert alive() is None


def test_a_future_that_was_cancelled_does_not_stop_the_thread():
    with scripted("a " * 50, delay=0.005) as engine:
        engine.submit(text())
        futures = [engine.call(lambda: 1) for _ in range(5)]
        for future in futures:
            future.cancel()
        assert engine.call(lambda: 7).result(5) == 7


def test_unknown_engine_args_are_named():
    with pytest.raises(OptionError, match="did you mean delay"):
        ScriptedBackend(LoadSpec(model="x", engine_args={"dealy": 1}))


def test_script_capabilities_can_be_changed():
    backend = ScriptedBackend(LoadSpec(model="x", engine_args={"capabilities": {"schema": False}}))
    assert not backend.capabilities.schema
    assert backend.capabilities.in_flight


# The gate between loading and generating --------------------------------------------------------------------


def test_loading_waits_for_a_step_and_goes_before_the_next_one():
    gate, order = ModelGate(), []

    def load() -> None:
        with gate.instantiate(threading.Event()):
            order.append("load")
            time.sleep(0.05)
            order.append("loaded")

    with gate.running():
        thread = threading.Thread(target=load)
        thread.start()
        time.sleep(0.1)
        order.append("step")
        gate.let_loads_pass()
        order.append("next step")
    thread.join(5)
    assert order == ["step", "load", "loaded", "next step"]


def test_a_load_that_waits_can_be_cancelled():
    gate, cancelled = ModelGate(), threading.Event()
    with gate.running():
        threading.Timer(0.1, cancelled.set).start()
        with pytest.raises(Cancelled), gate.instantiate(cancelled):
            pass
        gate.let_loads_pass()
    with MODEL_GATE.running():
        pass


# Processes of their own -------------------------------------------------------------------------------------


def test_exit_with_a_running_request_is_clean_and_quick():
    code = """
    import sys, threading
    sys.path[:0] = [TESTS]
    from engine_helpers import ignore, text
    from vlm_nb.engines.base import Engine
    from vlm_nb.engines.scripted import ScriptedBackend
    from vlm_nb.engines.spec import LoadSpec
    spec = LoadSpec(model="x", script="a " * 10_000, engine_args={"delay": 0.01})
    engine = Engine(ScriptedBackend(spec), "x")
    ticket = engine.submit(text(max_new_tokens=100_000))
    next(ticket.events())
    print("leaving", flush=True)
    """
    code = textwrap.dedent(code).replace("TESTS", repr(str(Path(__file__).parent)))
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parent.parent,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "leaving", "")
    assert time.monotonic() - started < 30
