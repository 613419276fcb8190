"""In-flight batching: a row leaves as soon as it is answered, and a waiting one takes its place.

A step is one round of prefill, within a budget of tokens, and one token for every running row. Between two
steps the engine drops cancelled rows and admits new ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from ..base import as_vlm_error
from . import devices, gate
from .admission import Limits, first_in_line
from .batching import Row
from .choosing import choose
from .compiling import Compiled
from .leftpad import Block
from .opening import Loaded
from .prefill import prefill
from .preparing import ready_bytes
from .reuse import Reuse
from .static import StaticLoop, fail, token_room, too_big

log = logging.getLogger("vlm_nb")
BUDGET = {"cuda": 8192, "mps": 2048, "cpu": 2048}


class Scheduler:
    """Rows ``waiting`` and ``running``; the running ones are the rows of ``block``, in order.

    ``slots`` bounds the running rows, halved when memory runs out; an interactive row may exceed it by one.
    A row that needs beam search goes through ``static``, alone. ``refused`` is set if the model's first cache
    is not as expected: then no row has been answered yet, and none can be here. ``compiled`` runs the decode
    steps, where it was asked for.
    """

    def __init__(
        self, loaded: Loaded, slots: int, reuse: Reuse | None = None, compiled: Compiled | None = None
    ) -> None:
        self.slots = slots
        self.waiting: list[Row] = []
        self.running: list[Row] = []
        self.block: Block | None = None
        self.refused: str | None = None
        self._loaded = loaded
        self._reuse = reuse
        self._compiled = compiled
        self._static = StaticLoop(loaded, 1)
        self._most_waiting = ready_bytes(loaded.device)
        self._budget = BUDGET.get(loaded.device.type, BUDGET["cpu"])
        self._checked = False

    @property
    def rows(self) -> list[Row]:
        """All rows, those under way first."""
        return self.running + self.waiting

    def free_slots(self) -> int:
        """As many rows as slots may wait, so that prompts of like lengths can be prefilled together."""
        return 2 * self.slots - len(self.running) - len(self.waiting)

    @property
    def full(self) -> bool:
        """Whether the tensors of waiting rows are as many bytes as they may be."""
        return sum(row.encoded.nbytes for row in self.waiting) >= self._most_waiting

    @property
    def due(self) -> bool:
        """Whether a step has something to do."""
        return bool(self.running or self.waiting)

    def add(self, row: Row) -> None:
        """Take a row in."""
        self.waiting.append(row)

    def forget(self, row: Row) -> None:
        """Leave a row out from now on."""
        self.waiting = [other for other in self.waiting if other is not row]
        if any(other is row for other in self.running):
            self._keep([n for n, other in enumerate(self.running) if other is not row])

    def step(self) -> None:
        """Prefill one group of waiting rows, if there is room, and decode one token for all running ones."""
        group = self._group()
        if group and group[0].searches:
            self._with_beams(group[0])
        elif group:
            self._attempt(lambda: self._prefill(group), lambda error: self._prefill_failed(group, error))
        if self.running:
            self._attempt(self._decode, self._decode_failed)

    # Prefill ------------------------------------------------------------------------------------------------

    def _group(self) -> list[Row]:
        """The rows to prefill now."""
        found = first_in_line(self.waiting, len(self.running), self.slots)
        if found is None:
            return []
        sharing = self._reuse is not None and self._reuse.prefixes is not None
        limits = Limits(self._budget, self._memory(), self._known(), sharing)
        return limits.group(found[0], self.waiting, self.running, found[1])

    def _known(self) -> dict[Row, int]:
        """How many tokens of each waiting row's prompt are known already, where some are."""
        if self._reuse is None:
            return {}
        found = ((row, self._reuse.known(row)) for row in self.waiting)
        return {row: tokens for row, tokens in found if tokens}

    def _memory(self) -> int | None:
        """Tokens that the block may hold: what it holds, and what fits into free memory."""
        free = token_room(self._loaded)
        held = len(self.running) * self.block.width if self.block else 0
        return None if free is None else free + held

    def _prefill(self, group: list[Row]) -> None:
        loaded = self._loaded
        block, scores = prefill(loaded.model, group, loaded.device, self._reuse)
        self._check(block)
        if self.refused is None:
            if self._reuse is not None:
                self._reuse.remember_prompts(group, block)
            self._start(group, block, scores)

    def _check(self, block: Block) -> None:
        if not self._checked:
            self._checked = True
            self.refused = gate.unexpected(block.cache, block.width)
            if self._reuse is not None:
                self._reuse.checked = True

    def _start(self, group: list[Row], block: Block, scores: torch.Tensor) -> None:
        self.waiting = [row for row in self.waiting if row not in group]
        alive = self._deliver(group, scores)
        self._remember(group, alive, block)
        if not alive:
            return
        if len(alive) < len(group):
            block.keep(alive)
        held, self.block = self.block, None  # should the join break off, nobody has a block
        if held is not None:
            held.join(block)
        self.block = held or block
        self.running += [group[n] for n in alive]

    def _deliver(self, rows: list[Row], scores: torch.Tensor) -> list[int]:
        """Give each row its next token; return the indices of those that go on."""
        chosen = choose(rows, scores)
        return [
            n
            for n, (row, (token, logprob)) in enumerate(zip(rows, chosen, strict=True))
            if not row.take(token, logprob)
        ]

    def _with_beams(self, row: Row) -> None:
        self.forget(row)
        self._static.add(row)
        self._static.step()
        self._static.rows.clear()

    # Decode -------------------------------------------------------------------------------------------------

    def _decode(self) -> None:
        assert self.block is not None  # noqa: S101 - rows are running
        last = torch.tensor([[row.new_ids[-1]] for row in self.running], device=self._loaded.device)
        if self._compiled is not None:
            scores = self._compiled.decode(self.block, last)
        else:
            scores = self.block.decode(self._loaded.model, last)
        alive = self._deliver(self.running, scores)
        if len(alive) < len(self.running):
            self._keep(alive)

    def _keep(self, alive: list[int]) -> None:
        if self.block is not None:
            self._remember(self.running, alive, self.block)
        order = _close_gaps(alive)
        self.running = [self.running[n] for n in order]
        if not alive:
            self.block = None
        elif self.block is not None:
            self.block.keep(order)

    def _remember(self, rows: list[Row], alive: list[int], block: Block) -> None:
        if self._reuse is not None:
            self._reuse.remember_answers(rows, [n for n in range(len(rows)) if n not in alive], block)

    # Failures -----------------------------------------------------------------------------------------------

    def _attempt(self, action: Callable[[], None], failed: Callable[[BaseException], None]) -> None:
        failure: BaseException | None = None
        try:
            action()
        except Exception as error:  # noqa: BLE001 - its rows get it
            failure = error
        if failure is not None:  # outside of the except, where the frames would keep the tensors
            failed(failure)

    def _prefill_failed(self, group: list[Row], failure: BaseException) -> None:
        no_memory, ours = devices.is_out_of_memory(failure), as_vlm_error(failure)
        others = bool(self.running)
        self._take_back(group)
        freed = no_memory and self._free()
        if len(group) > 1:
            self._split(group, no_memory)
        elif no_memory and (others or (freed and not group[0].single)):
            self.slots = max(1, len(self.running))  # it waits until rows have left
            group[0].single = True
        else:
            self.forget(group[0])
            fail(group, too_big(group[0]) if no_memory else ours)

    def _take_back(self, group: list[Row]) -> None:
        """After a prefill that broke off: its rows wait again; all rows do, if the block went with it."""
        if self.block is None:
            self.waiting, self.running = self.running + self.waiting, []
        lost = [row for row in group if not row.ticket.done and row not in self.waiting]
        self.waiting = lost + self.waiting

    def _split(self, group: list[Row], no_memory: bool) -> None:
        """Let each row of a group that failed try by itself; with less room if memory ran out."""
        if no_memory:
            self.slots = max(1, (len(self.running) + len(group)) // 2)
            self._budget = max(1, self._budget // 2)
            log.info("out of memory at prefill of %d rows; going on with %d", len(group), self.slots)
            return
        for row in group:
            row.single = True

    def _decode_failed(self, failure: BaseException) -> None:
        no_memory, ours = devices.is_out_of_memory(failure), as_vlm_error(failure)
        freed = no_memory and self._free()
        if no_memory and (len(self.running) > 1 or freed):
            self._halve()
            return
        fail(self.running, too_big(self.running[0]) if no_memory else ours)
        self.running, self.block = [], None

    def _halve(self) -> None:
        """Send the newest half of the running rows back; they go on later from the tokens they have."""
        self.slots = max(1, len(self.running) // 2)
        stay = self.slots if self.block is not None and self.block.restore() else 0
        by_age = sorted(range(len(self.running)), key=lambda n: self.running[n].ticket.submitted)
        rows, stays = self.running, sorted(by_age[:stay])
        back = [rows[n] for n in by_age[stay:]]
        self.running, self.waiting = [rows[n] for n in stays], back + self.waiting
        for row in back:
            row.single = True
        if self.block is not None and stay:
            self.block.keep(stays)
        else:
            self.block = None
        log.info("out of memory while decoding; going on with %d rows", self.slots)

    def _free(self) -> bool:
        """Give up what is kept for reuse; whether there was anything."""
        freed = self._reuse is not None and self._reuse.clear()
        freed = (self._loaded.device.type == "cpu" and self._loaded.encoder.forget()) or freed
        devices.release_memory()
        return freed


def _close_gaps(alive: list[int]) -> list[int]:
    """The same rows, the last ones in the places of those that left: few rows move."""
    inside, behind = {n for n in alive if n < len(alive)}, [n for n in alive if n >= len(alive)]
    return [n if n in inside else behind.pop() for n in range(len(alive))]
