"""How far a run is."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Cancelled
from ..results import Outcome


@dataclass(slots=True)
class Counts:
    """How far a run is: finished rows, those without an image, those known already, failed and runaway ones.

    A runaway answer repeated itself without end and was cut. ``stopped``: the run ended before its last row;
    rows that this cancelled are not finished and have not failed.
    """

    rows: int = 0
    nulls: int = 0
    hits: int = 0
    failed: int = 0
    runaway: int = 0
    stopped: bool = False

    def add(self, outcome: Outcome) -> None:
        """Count one more row."""
        result, error = outcome
        cancelled = isinstance(error, Cancelled)
        self.rows += not cancelled
        self.failed += error is not None and not cancelled
        self.runaway += result is not None and result.usage.finish_reason == "runaway"
