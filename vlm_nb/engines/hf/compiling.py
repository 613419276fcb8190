"""The decode step, compiled by torch: two graphs a model, one for a row alone and one for several.

Rows and columns are sizes that the graphs leave open, so that rows join, leave and grow without another
compilation. A graph writes the new column in place, into the rooms of the block's cache. Prefill stays as it
is. On a GPU the graph of a row alone is recorded as CUDA graphs (``lane``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..base import MODEL_GATE, Progress, raise_if_cancelled
from . import devices
from .failures import first_line
from .graph import Inductor, Step, leave_open, own, step_of
from .lane import DEVICES, Lane
from .leftpad import Block, takes_added_masks
from .opening import Loaded
from .prefill import first_tokens

log = logging.getLogger("vlm_nb")
SAMPLES = (((5, 23), (3, 41)), ((1, 29), (1, 47)))
"""For each graph, (rows, columns) to compile with and to try it with. No two sizes of a sample are alike:
equal ones would be taken for one and the same."""
CLOSE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}
"""How far compiled scores may be from the model's own, relative to the largest."""


class Unfit(Exception):
    """Why a model is not compiled."""


class Compiled:
    """Decodes blocks of one model through its graphs; as the model does it once ``refused`` says why.

    ``details`` are the model's, for ``%vlm status``.
    """

    def __init__(self, model: Any, details: dict[str, Any]) -> None:
        self.refused: str | None = None
        self._model = model
        self._details = details
        self._inductor = Inductor()
        self._graph: Step | None = None
        self._lane: Lane | None = None

    @property
    def graphs(self) -> int:
        """How many graphs have been compiled."""
        return self._inductor.graphs

    def decode(self, block: Block, tokens: torch.Tensor) -> torch.Tensor:
        """As ``Block.decode``. A step that fails, for want of memory excepted, is the last compiled one."""
        if self.refused is None:
            try:
                if self._lane is not None and self._lane.takes(block):
                    return self._lane.decode(block, tokens)
                return self.run(block, tokens)
            except Exception as error:
                if devices.is_out_of_memory(error):
                    raise
                self.refuse(f"a compiled step failed: {_reason(error)}")
                block.restore()
                log.warning("compile=True: %s", self._details["compile"])
        return block.decode(self._model, tokens)

    def refuse(self, reason: str) -> None:
        """Give the graphs up, and say why."""
        self.refused, self._graph, self._lane = reason, None, None
        self._details["compile"] = f"no: {reason}"

    def close(self) -> None:
        """Compile nothing more."""
        self._inductor.closed = True

    def run(self, block: Block, tokens: torch.Tensor, *, opened: bool = False) -> torch.Tensor:
        """One step through a graph; ``opened`` marks the sizes that a graph compiled now must leave open."""
        positions = block.positions.clone(memory_format=torch.contiguous_format)
        if opened:
            leave_open(tokens, positions)
        _forget_prompt(self._model)
        block.make_room()
        with block.stepping(self._model):
            return self._compiled_step()(tokens, positions)

    def check(self, rows: int, columns: int, *, opened: bool) -> None:
        """Decode a sample of so many rows; raises Unfit where the scores are not the model's own."""
        blocks = [_sample(self._model, rows, columns) for _ in range(2)]
        if not takes_added_masks(self._model, blocks[0].cache):
            raise Unfit("only known language models with full attention through sdpa are compiled")
        tokens = torch.full((rows, 1), 1, device=blocks[0].mask.device)
        expected = blocks[0].decode(self._model, tokens)
        self._compare(self.run(blocks[1], tokens, opened=opened), expected)

    def _compare(self, found: torch.Tensor, expected: torch.Tensor) -> None:
        far = (found - expected).abs().max() / expected.abs().max()
        if not far < CLOSE.get(self._model.dtype, max(CLOSE.values())):
            raise Unfit(f"compiled scores differ from the model's own by {float(far):.2g}")

    def record(self, free: int | None) -> int:
        """Record the step of a row alone, with ``free`` bytes to take a part of, and try each recording.

        Returns how long the row may be. Raises Unfit where scores are not the model's own.
        """
        row, same = (_sample(self._model, *SAMPLES[1][0]) for _ in range(2))
        lane = Lane(self._model, row, self._compiled_step(), free)
        token = torch.full((1, 1), 1, device=row.mask.device)
        for length in lane.lengths:
            self._compare(lane.decode(row, token, length), same.decode(self._model, token))
        self._lane = lane
        return lane.lengths[-1]

    def _compiled_step(self) -> Step:
        if self._graph is None:
            self._graph = torch.compile(own(step_of(self._model)), fullgraph=True, backend=self._inductor)
        return self._graph


def compiled(loaded: Loaded, progress: Callable[[Progress], None], cancelled: threading.Event) -> Compiled:
    """Compile the graphs of a model and try them; ``refused`` says why there are none. Raises Cancelled."""
    made, began = Compiled(loaded.model, loaded.info.details), time.monotonic()
    for number, sizes in enumerate(SAMPLES, start=1):
        raise_if_cancelled(cancelled)
        progress(Progress(text=f"compiling, graph {number} of {len(SAMPLES)}", timed=True))
        _compile(made, sizes)
        if made.refused is not None:
            return made
    made.close()
    if loaded.device.type in DEVICES:
        raise_if_cancelled(cancelled)
        progress(Progress(text="recording CUDA graphs", timed=True))
        _record(made, loaded)
    loaded.info.details["compile"] = f"{made.graphs} graphs in {time.monotonic() - began:.0f} s"
    return made


def _compile(made: Compiled, sizes: Sequence[tuple[int, int]]) -> None:
    graphs, failure = made.graphs, None
    try:
        with MODEL_GATE.running():
            for rows, columns in sizes:
                made.check(rows, columns, opened=made.graphs == graphs)
    except Exception as error:  # noqa: BLE001 - compilers fail in many ways, and the model can do without
        failure = _reason(error)
    if failure is None and made.graphs != graphs + 1:
        failure = "torch made a graph for these sizes only"
    if failure is not None:  # outside of the except block, whose frames keep tensors
        made.refuse(failure)
        devices.release_memory()


def _record(made: Compiled, loaded: Loaded) -> None:
    """CUDA graphs, where they can be made; else a row alone goes through its graph as torch runs it."""
    failure = None
    try:
        with MODEL_GATE.running():
            said = f"a row alone, up to {made.record(devices.free_memory(loaded.device))} tokens"
    except Exception as error:  # noqa: BLE001 - not all operations can be recorded, and the model can do without
        failure = _reason(error)
    if failure is not None:
        said = f"no: {failure}"
        devices.release_memory()
        log.info("CUDA graphs: %s", said)
    loaded.info.details["CUDA graphs"] = said


def _reason(error: BaseException) -> str:
    """What the innermost error says: a compiler's is wrapped by torch."""
    while (inner := getattr(error, "inner_exception", None)) is not None:
        error = inner
    said = first_line(error)
    return said if isinstance(error, Unfit) else f"{type(error).__name__}: {said}"


def _forget_prompt(model: Any) -> None:
    """Drop what Qwen's models note of the last prompt, a number for each of its rows.

    Before transformers 5.23 a step looks at it, so that its graph would serve that many rows only. Positions
    come from outside.
    """
    inner: Any = getattr(model, "model", None)
    if getattr(inner, "rope_deltas", None) is not None:
        inner.rope_deltas = None


def _sample(model: Any, rows: int, columns: int) -> Block:
    """A block after the prefill of a text without sense."""
    ids = torch.arange(rows * columns, device=model.device).reshape(rows, columns) % 11 + 1
    block, _ = first_tokens(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    block.make_room()
    return block
