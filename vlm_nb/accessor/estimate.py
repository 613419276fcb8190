"""What a table will take: a few rows measured, the rest reckoned."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..asking import Job
from ..batch import Run, known_rows
from ..errors import VLMError
from ..results import Outcome
from .call import Call
from .columns import is_null, whole
from .questions import PromptOf
from .table import job_of

if TYPE_CHECKING:
    from ..model import VLM

_LOOKED_UP = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """``rows`` with an image, of which about ``known`` are in the ledger; the rest by ``measured`` rows.

    ``seconds_a_row``, ``image_tokens`` and ``new_tokens`` are means of the measured rows, None without any.
    ``memory`` says what the model takes; ``failures`` are the errors of measured rows.
    """

    rows: int
    nulls: int
    known: int
    measured: int
    seconds_a_row: float | None
    image_tokens: float | None
    new_tokens: float | None
    memory: str
    failures: tuple[str, ...] = ()

    @property
    def seconds(self) -> float | None:
        """Reckoned seconds for the rows that are not known yet."""
        return None if self.seconds_a_row is None else self.seconds_a_row * max(0, self.rows - self.known)

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        without = f", {self.nulls:,} more without an image" if self.nulls else ""
        yield f"rows: {self.rows:,}{without}; in the ledger already: {self.known:,}"
        if self.image_tokens is not None:
            every = f", {self.image_tokens * self.rows:,.0f} in all"
            new = "" if self.new_tokens is None else f"; new tokens: about {self.new_tokens:,.0f} a row"
            yield f"image tokens: about {self.image_tokens:,.0f} a row{every}{new}"
        if self.seconds_a_row is not None and self.seconds is not None:
            left = duration(self.seconds)
            yield f"time: {self.seconds_a_row:.3g} s a row ({self.measured} measured), about {left} left"
        yield f"memory: {self.memory}"
        for failure in self.failures:
            yield f"a measured row failed: {failure}"


def estimate(images: pd.Series[Any], prompt: PromptOf, call: Call, count: int) -> Estimate:
    """Look up a sample of the rows in the ledger, then measure ``count`` of those that are not there."""
    count = whole("rows", count, 0)
    rows = [row for row, cell in enumerate(images) if not is_null(cell)]
    sample = spread(rows, _LOOKED_UP)
    jobs = {row: job_of(call, images.iloc[row], prompt, row) for row in sample}
    known = known_rows(call.model, jobs.values(), call.run)
    fresh = [row for row, is_known in zip(sample, known, strict=True) if not is_known]
    outcomes, seconds = _measure(call, [jobs[row] for row in spread(fresh, count)])
    usages = [outcome.result.usage for outcome in outcomes if outcome.result is not None]
    return Estimate(
        rows=len(rows),
        nulls=len(images) - len(rows),
        known=round(sum(known) * len(rows) / max(1, len(sample))),
        measured=len(outcomes),
        seconds_a_row=seconds / len(outcomes) if outcomes else None,
        image_tokens=_mean([usage.image_tokens for usage in usages]),
        new_tokens=_mean([usage.new_tokens for usage in usages]),
        memory=memory_of(call.model),
        failures=tuple(f"{type(o.error).__name__}: {o.error}" for o in outcomes if o.error is not None),
    )


def _measure(call: Call, jobs: Sequence[Job | VLMError]) -> tuple[list[Outcome], float]:
    started = time.perf_counter()
    with Run(call.model, jobs, dataclasses.replace(call.run, show_progress=False)) as run:
        outcomes = [outcome for _, outcome in run]
    return outcomes, time.perf_counter() - started


def spread(rows: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of ``rows``, evenly from first to last."""
    if len(rows) <= count or not count:
        return list(rows[:count])
    step = (len(rows) - 1) / max(1, count - 1)
    return [rows[round(place * step)] for place in range(count)]


def _mean(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def memory_of(model: VLM) -> str:
    """What the model takes, and what its GPU has left where there is one."""
    taken = "not known here" if model.info.memory is None else size_text(model.info.memory)
    torch = sys.modules.get("torch")
    if torch is None or not model.info.device.startswith("cuda"):
        return f"model {taken} on {model.info.device}"
    free, total = torch.cuda.mem_get_info()
    return f"model {taken} on {model.info.device}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"


def size_text(count: int) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    """Seconds in words: "45 s", "5 min", "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
