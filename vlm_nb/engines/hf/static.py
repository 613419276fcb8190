"""Static batches: rows of one kind go through ``model.generate`` together, until the longest has ended.

For models that cannot be answered in flight, and for beam search.
"""

from __future__ import annotations

import logging

from ...errors import OutOfMemory, VLMError
from ..base import MODEL_GATE, as_vlm_error
from . import devices, generation
from .batching import Row, pick
from .opening import Loaded

log = logging.getLogger("vlm_nb")
CACHE_SHARE = 0.6


class StaticLoop:
    """Runs one batch a step. Free memory bounds it; after out-of-memory its rows go on in smaller batches."""

    def __init__(self, loaded: Loaded, slots: int) -> None:
        self.slots = slots
        self.rows: list[Row] = []
        self._loaded = loaded

    def free_slots(self) -> int:
        """Two batches may wait, so that rows of like lengths can be put together."""
        return 2 * self.slots - len(self.rows)

    full = False
    """Its rows' tensors are bounded by their number."""

    @property
    def due(self) -> bool:
        """Whether a batch is complete, or a person waits: what comes later waits for its end."""
        urgent = any(row.ticket.request.interactive for row in self.rows)
        return len(self.rows) >= self.slots or urgent

    def add(self, row: Row) -> None:
        """Take a row in."""
        self.rows.append(row)

    def forget(self, row: Row) -> None:
        """Leave a row out from now on."""
        self.rows = [other for other in self.rows if other is not row]

    def step(self) -> None:
        """Run one batch to its end."""
        loaded = self._loaded
        batch = pick(self.rows, self.slots, token_room(loaded))
        failure: BaseException | None = None
        try:
            generation.run(loaded.model, batch, loaded.device, MODEL_GATE.let_loads_pass)
        except Exception as error:  # noqa: BLE001 - its rows get it
            failure = error
        self._tidy()
        if failure is not None:
            self._recover(batch, failure)

    def _recover(self, batch: list[Row], failure: BaseException) -> None:
        """After an error: halve the batch if memory ran out, fail its rows otherwise."""
        no_memory = devices.is_out_of_memory(failure)
        ours = as_vlm_error(failure)  # drops the frames, and with them the batch's tensors
        if not no_memory:
            fail(batch, ours)
        elif len(batch) > 1:
            devices.release_memory()
            self.slots = max(1, len(batch) // 2)
            log.info("out of memory with %d rows; going on with %d", len(batch), self.slots)
        else:
            devices.release_memory()
            fail(batch, too_big(batch[0]))
        self._tidy()

    def _tidy(self) -> None:
        self.rows = [row for row in self.rows if not row.ticket.done]


def fail(rows: list[Row], error: VLMError) -> None:
    """End the rows' tickets with ``error``."""
    for row in rows:
        row.ticket.fail(error)


def too_big(row: Row) -> OutOfMemory:
    """The error of a row that does not fit even alone."""
    return OutOfMemory(
        f"out of memory: this request alone ({row.encoded.prompt_tokens} tokens of prompt and images) does "
        "not fit. Use a smaller max_pixels or max_new_tokens, or load with quantization=\"4bit\"."
    )  # fmt: skip


def token_room(loaded: Loaded) -> int | None:
    """Tokens whose cache fits into a share of the free memory; None where nobody tells."""
    free = devices.free_memory(loaded.device)
    return None if free is None or not loaded.kv_bytes else int(free * CACHE_SHARE) // loaded.kv_bytes
