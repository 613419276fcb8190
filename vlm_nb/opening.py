"""From a ``LoadSpec`` to a ``VLM``: an engine, its thread, the load itself, and the family that fits."""

from __future__ import annotations

import dataclasses
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from . import demo
from .engines import make_backend
from .engines.base import Engine, Progress
from .engines.spec import LoadSpec
from .families import family_for
from .model import DEMO, VLM

if TYPE_CHECKING:
    from .families.base import Family

T = TypeVar("T")
TICK_SECONDS = 0.5
EXACT = ("transformers", "ray")
"""Engines that run the demo model in float32 where nothing else is asked for."""


def open_model(
    spec: LoadSpec,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    cancelled: threading.Event | None = None,
    room: Mapping[str, int] | None = None,
    make_room: Callable[[], None] | None = None,
) -> VLM:
    """Load ``spec`` on a new engine thread and wait for it; Ctrl+C cancels. Raises a LoadError or Cancelled.

    ``on_progress`` is called in this thread, and so is ``make_room``: once everything is there and checked,
    just before the model takes memory. ``room`` says how many bytes it will free, by device.
    """
    cancelled = cancelled or threading.Event()
    reports: SimpleQueue[Progress] = SimpleQueue()
    engine = Engine(make_backend(engine_spec(spec)), spec.engine)
    try:
        _reported(engine.prepare(reports.put, cancelled, room or {}), reports, on_progress)
        if make_room is not None:
            make_room()
        info = _reported(engine.load(reports.put, cancelled), reports, on_progress)
    except BaseException:
        cancelled.set()
        engine.close(timeout=5.0)
        raise
    if spec.compile and not engine.capabilities.compiled:
        warnings.warn(f"compile=True: {info.details.get('compile')}. Answers come uncompiled.", stacklevel=4)
    return VLM(spec, engine, info, chosen_family(spec, info.model_type))


def _reported(
    future: Future[T], reports: SimpleQueue[Progress], on_progress: Callable[[Progress], None] | None
) -> T:
    """Wait for ``future``, handing over what is reported meanwhile, and the seconds of what is timed."""
    timed, began = None, 0.0
    while not future.done() or not reports.empty():
        try:
            report = reports.get(timeout=TICK_SECONDS if timed else 0.05)
            timed, began = (report if report.timed else None), time.monotonic()
        except Empty:
            if timed is None:
                continue
            report = dataclasses.replace(timed, text=f"{timed.text}, {time.monotonic() - began:.0f} s")
        if on_progress:
            on_progress(report)
    return future.result()


def engine_spec(spec: LoadSpec) -> LoadSpec:
    """Return ``spec`` as an engine reads it: the demo model's folder, and the modules kept in 16 bit.

    The demo model stays in float32, as it was trained: that costs nothing, and its answers in batches are
    those that it gives alone.
    """
    local = spec.model == DEMO and spec.engine not in ("openai", "scripted")
    exact = local and spec.engine in EXACT and spec.quantization is None and spec.quantization_config is None
    return dataclasses.replace(
        spec,
        model=str(demo.weights_path()) if local else spec.model,
        dtype="float32" if exact and spec.dtype is None else spec.dtype,
        quantization_skips=lambda model_type: chosen_family(spec, model_type).quantization_skips,
    )


def chosen_family(spec: LoadSpec, model_type: str | None) -> Family:
    """The family that the user named, else the one of the model's type or name."""
    return family_for(spec.family or model_type, spec.model)
