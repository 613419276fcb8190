"""What ``gpu.py`` reads off: memory and its speed, bytes that a token costs, rows in a step, back-offs."""

from __future__ import annotations

import contextlib
import functools
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from vlm_nb.engines.hf import devices, memory
from vlm_nb.engines.hf.devices import in_gib
from vlm_nb.engines.hf.scheduler import Scheduler


def in_use(device: torch.device) -> str:
    """What torch has allocated, and what the device's driver counts, other processes included."""
    if device.type != "cuda":
        return in_gib(devices.used_memory(device) or 0)
    free, total = torch.cuda.mem_get_info(device)
    return f"{in_gib(torch.cuda.memory_allocated(device))} (of the device {in_gib(total - free)})"


def watched_peak(device: torch.device) -> None:
    """Let ``peak`` count from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> str:
    if device.type != "cuda":
        return "only on a GPU"
    held = torch.cuda.max_memory_reserved(device)
    return f"{in_gib(torch.cuda.max_memory_allocated(device))} (reserved {in_gib(held)})"


def bandwidth(device: torch.device) -> float:
    """Bytes read and written a second by copying a large tensor on the device; the median of ten copies."""
    source = torch.ones(2**30 if device.type == "cuda" else 2**26, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = [seconds(device, functools.partial(target.copy_, source)) for _ in range(12)][2:]
    return 2 * source.nbytes / statistics.median(times)


def seconds(device: torch.device, work: Callable[[], object]) -> float:
    if device.type != "cuda":
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    with torch.cuda.device(device):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        work()
        last.record()
        last.synchronize()
    return first.elapsed_time(last) / 1000


def read_bytes(model: Any) -> int:
    """Bytes of weights that a token reads: the language model's and the head's, of the embeddings a row."""
    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return memory.measured(model.get_decoder()) - embeddings.nbytes + head.nbytes


@contextlib.contextmanager
def widths() -> Iterator[list[int]]:
    """How many rows each decode step within has."""
    plain, found = Scheduler._decode, list[int]()

    def counted(loop: Scheduler) -> None:
        found.append(len(loop.running))
        plain(loop)

    Scheduler._decode = counted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Scheduler._decode = plain  # type: ignore[method-assign]


@contextlib.contextmanager
def back_offs() -> Iterator[list[str]]:
    """What the engine logs when memory ran out and it goes on with fewer rows."""
    log, found = logging.getLogger("vlm_nb"), list[str]()
    handler, level = logging.Handler(), log.level
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    handler.addFilter(lambda record: record.getMessage().startswith("out of memory"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield found
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
