"""The transformers engine: any image-text-to-text checkpoint, on CUDA, Apple's GPU or the CPU.

For now requests are answered in static batches, padded on the left: ``step`` runs one batch to its end and
delivers every token as it comes. Requests that arrive meanwhile wait for the next batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Collection
from typing import Any

import torch

from ..errors import OptionError, OutOfMemory
from .base import MODEL_GATE, Capabilities, MemoryReport, ModelInfo, Progress, Ticket, as_vlm_error
from .hf import devices, generation
from .hf.batching import Row, pick
from .hf.constraint import Constraint, Grammars
from .hf.decoding import TextStream
from .hf.opening import Loaded, open_model
from .hf.sampling import Sampler
from .spec import LoadSpec

log = logging.getLogger("vlm_nb")
DEFAULT_ROWS = {"cuda": 16, "mps": 8, "cpu": 8}
CACHE_SHARE = 0.6


class TransformersBackend:
    """Loads ``spec.model`` and answers requests with it.

    ``spec.max_batch_size`` caps the rows of a batch; free memory decides within it, and a batch that runs
    out of memory is halved and goes on where it was.
    """

    def __init__(self, spec: LoadSpec) -> None:
        if spec.engine_args:
            raise OptionError(
                "the transformers engine takes model_kwargs= (for from_pretrained), not engine_args=."
            )
        self.capabilities = Capabilities(beams=True, confidence=True, schema=True)
        self.memory_report: MemoryReport | None = None
        self._spec = spec
        self._loaded: Loaded | None = None
        self._rows: list[Row] = []
        self._grammars: Grammars | None = None
        self._most_rows = spec.max_batch_size or DEFAULT_ROWS["cpu"]

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Inference mode; it holds for the thread that enters it only."""
        return torch.inference_mode()

    def open(self, progress: Callable[[Progress], None], cancelled: threading.Event) -> ModelInfo:
        """Load the model; raises a LoadError, OutOfMemory, OptionError or Cancelled."""
        loaded = open_model(self._spec, progress, cancelled)
        self._loaded, self.memory_report = loaded, loaded.memory
        self._most_rows = self._spec.max_batch_size or DEFAULT_ROWS.get(
            loaded.device.type, DEFAULT_ROWS["cpu"]
        )
        return loaded.info

    # Requests -----------------------------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        """How many requests a batch may hold."""
        return self._most_rows

    @property
    def running(self) -> Collection[Ticket]:
        """The admitted, unfinished tickets."""
        return [row.ticket for row in self._rows]

    def free_slots(self) -> int:
        """Two batches may wait, so that rows of like lengths can be put together."""
        return 2 * self.slots - len(self._rows)

    def admit(self, tickets: list[Ticket]) -> None:
        """Run the processor on each request; one that it refuses fails alone."""
        for ticket in tickets:
            try:
                self._rows.append(self._row(ticket))
            except Exception as error:  # noqa: BLE001 - it is this request's own
                ticket.fail(as_vlm_error(error))

    def _row(self, ticket: Ticket) -> Row:
        loaded, settings = self._need(), ticket.request.generation
        encoded = loaded.encoder.encode(ticket.request)
        room = settings.max_new_tokens if loaded.context is None else loaded.context - encoded.prompt_tokens
        return Row(
            ticket=ticket,
            encoded=encoded,
            sampler=Sampler(settings, loaded.defaults, loaded.eos, loaded.device, self._constraint(ticket)),
            stream=TextStream(
                loaded.tokenizer, skip_special=not ticket.request.keep_special_tokens, stop=settings.stop
            ),
            limit=min(settings.max_new_tokens, room),
            eos=loaded.eos,
        )

    def _constraint(self, ticket: Ticket) -> Constraint | None:
        schema = ticket.request.schema
        if schema is None:
            return None
        if self._grammars is None:
            loaded = self._need()
            width = loaded.model.config.get_text_config().vocab_size
            self._grammars = Grammars(loaded.tokenizer, width, loaded.eos)
        return self._grammars.constraint(schema)

    def step(self) -> None:
        """Run one batch to its end. After out-of-memory its rows go on in smaller batches."""
        loaded = self._need()
        batch = pick(self._rows, self._most_rows, self._token_room(loaded))
        failure: BaseException | None = None
        with MODEL_GATE.running():
            try:
                generation.run(loaded.model, batch, loaded.device, MODEL_GATE.let_loads_pass)
            except Exception as error:  # noqa: BLE001 - its rows get it
                failure = error
        self._rows = [row for row in self._rows if not row.ticket.done]
        if failure is not None:
            self._recover(batch, failure)

    def _recover(self, batch: list[Row], failure: BaseException) -> None:
        """After an error: halve the batch if memory ran out, fail its rows otherwise."""
        no_memory = devices.is_out_of_memory(failure)
        ours = as_vlm_error(failure)  # drops the frames, and with them the batch's tensors
        if not no_memory:
            self._fail(batch, ours)
            return
        devices.release_memory()
        if len(batch) > 1:
            self._most_rows = max(1, len(batch) // 2)
            log.info("out of memory with %d rows; going on with %d", len(batch), self._most_rows)
            return
        tokens = batch[0].encoded.prompt_tokens
        self._fail(batch, OutOfMemory(
            f"out of memory: this request alone ({tokens} tokens of prompt and images) does not fit. Use a "
            "smaller max_pixels or max_new_tokens, or load with quantization=\"4bit\"."
        ))  # fmt: skip

    def _fail(self, batch: list[Row], error: Any) -> None:
        for row in batch:
            row.ticket.fail(error)
        self._rows = [row for row in self._rows if not row.ticket.done]

    def _token_room(self, loaded: Loaded) -> int | None:
        """Tokens whose cache fits into a share of the free memory."""
        free = devices.free_memory(loaded.device)
        return None if free is None or not loaded.kv_bytes else int(free * CACHE_SHARE) // loaded.kv_bytes

    def drop(self, ticket: Ticket) -> None:
        """Forget a waiting row that was cancelled."""
        self._rows = [row for row in self._rows if row.ticket is not ticket]

    def close(self) -> None:
        """Free model, caches and device memory."""
        loaded, self._loaded, self._grammars = self._loaded, None, None
        self._rows.clear()
        if loaded is None:
            return
        report = loaded.memory
        device = loaded.device
        del loaded
        devices.release_memory()
        self.memory_report = dataclasses.replace(report, after=devices.used_memory(device))

    def _need(self) -> Loaded:
        if self._loaded is None:
            raise OptionError("this engine has no model; call load() first.")
        return self._loaded
