"""The transformers engine: any image-text-to-text checkpoint, on CUDA, Apple's GPU or the CPU.

Requests are answered in flight where the model allows it (``hf.scheduler``), else in static batches
(``hf.static``); ``ModelInfo.details["loop"]`` says which, and why.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from ..errors import OptionError, unknown_option
from ..request import Request
from .base import MODEL_GATE, Capabilities, MemoryReport, ModelInfo, Progress, Ticket, as_vlm_error
from .hf import compiling, devices, gate, opening
from .hf.constraint import Constraint, Grammars
from .hf.encoding import Encoded
from .hf.opening import Loaded
from .hf.preparing import Preparing, Task, ready_bytes, thread_count
from .hf.reuse import Reuse
from .hf.rows import row_of
from .hf.sampling import Sampler
from .hf.scheduler import Scheduler
from .hf.static import StaticLoop
from .spec import LoadSpec, refuse

log = logging.getLogger("vlm_nb")
DEFAULT_ROWS = {"cuda": 16, "mps": 8, "cpu": 8}
DEFAULT_SLOTS = {"cuda": 32, "mps": 8, "cpu": 64}
READY_SECONDS = 0.02
REUSE_SHARE = 0.1
REUSE_BYTES = 2 * 2**30
OPTIONS = ("in_flight", "reuse", "pack")
FOREIGN = (
    *("base_url", "api_key", "max_concurrency", "error_threshold", "adjust_every", "allow_local_paths"),
    *("image_quality", "tensor_parallel", "max_model_len", "gpu_memory_utilization"),
    *("replicas", "gpus_per_replica", "address", "script"),
)


class TransformersBackend:
    """Loads ``spec.model`` and answers requests with it.

    ``spec.max_batch_size`` caps the rows that are answered together; free memory decides within it, and after
    out-of-memory half of the rows go on. ``spec.engine_args`` may switch ``in_flight``, ``reuse`` and (on a
    CPU, ``hf.packed``) ``pack`` off.
    """

    def __init__(self, spec: LoadSpec) -> None:
        refuse(spec, FOREIGN, ': another engine= has it ("openai", "vllm", "ray", "scripted")')
        for key in spec.engine_args:
            if key not in OPTIONS:
                raise _unknown(key)
        self.capabilities = Capabilities(beams=True, confidence=True, schema=True)
        self.memory_report: MemoryReport | None = None
        self._spec = spec
        self._gpu = devices.current_gpu()  # of the thread that loads
        self._plan: opening.Plan | None = None
        self._loaded: Loaded | None = None
        self._loop: Scheduler | StaticLoop | None = None
        self._grammars: Grammars | None = None
        self._preparing: Preparing | None = None

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Inference mode; it holds for the thread that enters it only."""
        return torch.inference_mode()

    def prepare(
        self, progress: Callable[[Progress], None], cancelled: threading.Event, room: Mapping[str, int]
    ) -> None:
        """Find, check and download; raises a LoadError, OutOfMemory, OptionError or Cancelled."""
        devices.use(self._gpu)  # this thread is the engine's
        self._plan = opening.plan(self._spec, progress, cancelled, room)

    def open(self, progress: Callable[[Progress], None], cancelled: threading.Event) -> ModelInfo:
        """Load the model; raises a LoadError, OutOfMemory, OptionError or Cancelled."""
        if self._plan is None:
            self.prepare(progress, cancelled, {})
        plan, self._plan = self._plan, None
        assert plan is not None  # noqa: S101 - just made
        devices.use(plan.device)
        loaded = opening.load(plan, progress, cancelled)
        self._loaded, self.memory_report = loaded, loaded.memory
        refusal = gate.refusal(loaded.model) if self._spec.engine_args.get("in_flight", True) else "asked for"
        self._loop = self._static(refusal) if refusal else self._in_flight(progress, cancelled)
        threads = 1 if self._spec.trust_remote_code else thread_count(loaded.device)  # those may keep state
        self._preparing = Preparing(_encode(loaded), threads, ready_bytes(loaded.device))
        return loaded.info

    def _in_flight(self, progress: Callable[[Progress], None], cancelled: threading.Event) -> Scheduler:
        loaded = self._need()
        compiled = compiling.compiled(loaded, progress, cancelled) if self._spec.compile else None
        reuse = None
        if self._spec.engine_args.get("reuse", True):
            free = devices.free_memory(loaded.device)
            cap = REUSE_BYTES if free is None else min(REUSE_BYTES, int(free * REUSE_SHARE))
            reuse = Reuse(loaded.model, cap)
        loaded.info.details["loop"] = "in flight"
        self.capabilities = dataclasses.replace(
            self.capabilities, in_flight=True, compiled=compiled is not None and compiled.refused is None
        )
        return Scheduler(loaded, self._rows(DEFAULT_SLOTS), reuse, compiled)

    def _static(self, reason: str) -> StaticLoop:
        loaded = self._need()
        loaded.info.details["loop"] = f"static batches: {reason}"
        if self._spec.compile:
            loaded.info.details["compile"] = f"no: the model is answered in static batches ({reason})"
        self.capabilities = dataclasses.replace(self.capabilities, in_flight=False, compiled=False)
        return StaticLoop(loaded, self._rows(DEFAULT_ROWS))

    def _rows(self, defaults: dict[str, int]) -> int:
        return self._spec.max_batch_size or defaults.get(self._need().device.type, defaults["cpu"])

    # Requests -----------------------------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        """How many requests can be answered together."""
        return self._loop.slots if self._loop else self._spec.max_batch_size or DEFAULT_ROWS["cpu"]

    @property
    def running(self) -> Collection[Ticket]:
        """The admitted, unfinished tickets."""
        rows = [row.ticket for row in self._loop.rows] if self._loop else []
        return rows + self._preparing.tickets if self._preparing else rows

    def free_slots(self) -> int:
        """How many tickets may be admitted now; some wait, so that like lengths can be put together."""
        if self._loop is None or self._preparing is None:
            return self.slots
        return self._loop.free_slots() - len(self._preparing)

    def admit(self, tickets: list[Ticket]) -> None:
        """Hand each request to the threads that encode; one whose settings cannot be used fails alone."""
        loaded = self._need()
        for ticket in tickets:
            try:
                settings, constraint = ticket.request.generation, self._constraint(ticket)
                sampler = Sampler(settings, loaded.defaults, loaded.eos, loaded.device, constraint)
            except Exception as error:  # noqa: BLE001 - it is this request's own
                ticket.fail(as_vlm_error(error))
            else:
                self._need_preparing().add(Task(ticket, sampler))

    def _collect(self) -> None:
        """Make rows of what is encoded; a request that the processor refused fails alone."""
        loop, preparing = self._need_loop(), self._need_preparing()
        while not loop.full and (task := preparing.take()) is not None:
            if isinstance(task.result, Encoded):
                loop.add(row_of(self._need(), task.ticket, task.sampler, task.result))
            elif task.result is not None:
                task.ticket.fail(task.result)

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
        """Advance the rows: all of them by a token, or one static batch to its end; wait if none is ready."""
        loop, preparing = self._need_loop(), self._need_preparing()
        self._collect()
        if not loop.due and len(preparing):
            preparing.wait(READY_SECONDS)  # short: cancels and calls are seen in between
            self._collect()
        if not loop.due and (len(preparing) or not loop.rows):
            return
        with MODEL_GATE.running(), devices.attention_kernels(self._need().device):
            loop.step()
        if isinstance(loop, Scheduler) and loop.refused:
            log.info("static batches from now on: %s", loop.refused)
            self._loop = self._static(loop.refused)
            self._loop.rows = loop.rows

    def drop(self, ticket: Ticket) -> None:
        """Forget a request that was cancelled."""
        self._need_preparing().forget(ticket)
        for row in self._need_loop().rows:
            if row.ticket is ticket:
                self._need_loop().forget(row)

    def close(self) -> None:
        """Free model, caches and device memory."""
        preparing, self._preparing = self._preparing, None
        if preparing is not None:
            preparing.close()
        del preparing
        loaded, self._loaded, self._grammars, self._loop = self._loaded, None, None, None
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

    def _need_loop(self) -> Scheduler | StaticLoop:
        self._need()
        assert self._loop is not None  # noqa: S101 - made with the model
        return self._loop

    def _need_preparing(self) -> Preparing:
        self._need()
        assert self._preparing is not None  # noqa: S101 - made with the model
        return self._preparing


def _encode(loaded: Loaded) -> Callable[[Request], Encoded]:
    """What the preparing threads do: encode, and for a GPU put the tensors where it can copy them from."""
    encoder, pinned = loaded.encoder, loaded.device.type == "cuda"  # no model: the threads must not keep it

    def encode(request: Request) -> Encoded:
        encoded = encoder.encode(request)
        if pinned:
            encoded.pin()
        return encoded

    return encode


def _unknown(key: str) -> OptionError:
    error = unknown_option("engine_args key of the transformers engine", key, OPTIONS)
    return OptionError(f"{error} Keywords for from_pretrained go into model_kwargs=.")
