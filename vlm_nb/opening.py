"""From a ``LoadSpec`` to a ``VLM``: an engine, its thread, the load itself, and the family that fits."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from . import demo
from .engines import make_backend
from .engines.base import Engine, Progress
from .engines.spec import LoadSpec
from .families import family_for
from .model import DEMO, VLM

if TYPE_CHECKING:
    from .engines.base import ModelInfo
    from .families.base import Family


def open_model(
    spec: LoadSpec,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    cancelled: threading.Event | None = None,
) -> VLM:
    """Load ``spec`` on a new engine thread and wait for it; Ctrl+C cancels. Raises a LoadError or Cancelled.

    ``on_progress`` is called in this thread.
    """
    cancelled = cancelled or threading.Event()
    reports: SimpleQueue[Progress] = SimpleQueue()
    engine = Engine(make_backend(engine_spec(spec)), spec.engine)
    future = engine.load(reports.put, cancelled)
    try:
        while not future.done() or not reports.empty():
            try:
                report = reports.get(timeout=0.05)
            except Empty:
                continue
            if on_progress:
                on_progress(report)
        info: ModelInfo = future.result()
    except BaseException:
        cancelled.set()
        engine.close(timeout=5.0)
        raise
    return VLM(spec, engine, info, chosen_family(spec, info.model_type))


def engine_spec(spec: LoadSpec) -> LoadSpec:
    """Return ``spec`` as an engine reads it: the demo model's folder, and the modules kept in 16 bit."""
    local = spec.model == DEMO and spec.engine not in ("openai", "scripted")
    return dataclasses.replace(
        spec,
        model=str(demo.weights_path()) if local else spec.model,
        quantization_skips=lambda model_type: chosen_family(spec, model_type).quantization_skips,
    )


def chosen_family(spec: LoadSpec, model_type: str | None) -> Family:
    """The family that the user named, else the one of the model's type or name."""
    return family_for(spec.family or model_type, spec.model)
