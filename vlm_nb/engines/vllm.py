"""The ``vllm`` engine: vLLM inside this process, for one machine with one or several GPUs.

    model = vlm_nb.load("Qwen/Qwen2.5-VL-7B-Instruct", engine="vllm", max_model_len=8192, tensor_parallel=2)

vLLM pins a transformers version of its own, so it needs an environment of its own. Requests are handed over
as they come, vLLM batches them, and each ends by itself. A server in that environment and ``engine="openai"``
here do the same without sharing an environment.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Any

from .. import extras
from ..errors import CapabilityError, MissingDependency
from ..request import ImageRef, Request
from .base import Capabilities, ModelInfo, Progress, Ticket, raise_if_cancelled
from .remote.listing import info_of
from .runaway import LoopWatch
from .spec import LoadSpec
from .vllm_terms import as_dict, check, completion, engine_args, load_error, parameters, request_error

INSTALL = (
    "the vllm engine needs vLLM, which pins its own transformers: make an environment for it and "
    f'{extras.command("vllm")}; or serve the model there and use engine="openai" here.'
)


class VLLMBackend:
    """Loads ``spec.model`` with vLLM.

    ``spec``: ``tensor_parallel``, ``max_model_len``, ``gpu_memory_utilization`` (0..1), ``max_batch_size``
    (sequences at once), ``dtype``, ``quantization="4bit"`` (bitsandbytes; else as vLLM names it in
    ``engine_args``), ``chat_template``. ``engine_args`` go to ``vllm.EngineArgs`` as they are
    (``enable_prefix_caching``, ``limit_mm_per_prompt``, ``quantization``, …) and win.
    """

    capabilities = Capabilities(schema=True, confidence=True, in_flight=True)

    def __init__(self, spec: LoadSpec) -> None:
        check(spec)
        self._spec = spec
        self._engine: Any = None
        self._template: str | None = None
        self._tickets: dict[str, Ticket] = {}
        self._watches: dict[str, LoopWatch] = {}
        self._numbers = itertools.count()

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Nothing to set up: the model runs in processes of vLLM."""
        return contextlib.nullcontext()

    def prepare(
        self, progress: Callable[[Progress], None], cancelled: threading.Event, room: Mapping[str, int]
    ) -> None:
        """Raise MissingDependency where there is no vLLM; what else may fail, vLLM finds when it starts."""
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")  # it would print from its own threads
        try:
            import vllm  # noqa: F401 - only whether it is there
        except ImportError:
            raise MissingDependency(INSTALL) from None

    def open(self, progress: Callable[[Progress], None], cancelled: threading.Event) -> ModelInfo:
        """Start vLLM; raises MissingDependency, OptionError, OutOfMemory or LoadError."""
        self.prepare(progress, cancelled, {})
        from vllm import EngineArgs, LLMEngine

        progress(Progress(text="vLLM loads the model (it downloads, profiles and reserves memory by itself)"))
        try:
            self._engine = LLMEngine.from_engine_args(EngineArgs(**engine_args(self._spec)))
        except Exception as error:  # noqa: BLE001 - vLLM raises anything
            raise load_error(error) from None
        raise_if_cancelled(cancelled)
        self._template = self._chosen_template()
        return self._info()

    def _info(self) -> ModelInfo:
        from dataclasses import replace

        config = self._engine.model_config
        known = info_of(self._spec, "vllm", None, "vllm")
        return replace(
            known,
            model_type=getattr(config.hf_config, "model_type", None),
            device=str(self._engine.vllm_config.device_config.device_type),
            dtype=str(config.dtype).removeprefix("torch."),
            quantization=config.quantization,
            revision=self._spec.revision or getattr(config.hf_config, "_commit_hash", None),
            context_length=config.max_model_len,
            chat_template=self._template,
        )

    @property
    def slots(self) -> int:
        """How many sequences vLLM runs at once."""
        if self._engine is None:
            return self._spec.max_batch_size or 1
        return int(self._engine.vllm_config.scheduler_config.max_num_seqs)

    @property
    def running(self) -> Collection[Ticket]:
        """The tickets that vLLM holds."""
        return list(self._tickets.values())

    def free_slots(self) -> int:
        """Places left; vLLM queues by itself, but cancelling is quicker with a short queue."""
        return self.slots - len(self._tickets)

    def admit(self, tickets: list[Ticket]) -> None:
        """Hand the requests over; one that vLLM refuses fails alone."""
        for ticket in tickets:
            number = str(next(self._numbers))
            try:
                self._engine.add_request(number, self._prompt(ticket.request), parameters(ticket.request))
            except Exception as error:  # noqa: BLE001 - it is this request's own
                ticket.fail(request_error(error))
            else:
                self._tickets[number] = ticket
                if ticket.request.generation.cut_repeats:
                    self._watches[number] = LoopWatch.of_tokens(
                        after=ticket.request.generation.min_new_tokens
                    )

    def _prompt(self, request: Request) -> dict[str, Any]:
        order = [part.index for m in request.messages for part in m.parts if isinstance(part, ImageRef)]
        images = [request.images[index].convert("RGB") for index in order]
        prompt: dict[str, Any] = {"prompt": self._rendered(request)}
        if images:
            prompt["multi_modal_data"] = {"image": images}
        return prompt

    def _rendered(self, request: Request) -> str:
        if request.prompt is not None:
            return request.prompt
        template = self._template
        if template is None:
            raise CapabilityError("this checkpoint has no chat template; load it with chat_template=...")
        text = self._engine.get_tokenizer().apply_chat_template(
            [as_dict(message) for message in request.messages],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
        )
        return str(text)

    def _chosen_template(self) -> str | None:
        """The chat template: a text, what a file holds, or one of the tokenizer's. Raises OptionError."""
        from .hf.processor import chosen_template

        holder = SimpleNamespace(tokenizer=self._engine.get_tokenizer())
        return chosen_template(holder, self._spec.chat_template)

    def step(self) -> None:
        """Take what vLLM has finished computing, push it, end what is complete."""
        for output in self._engine.step():
            ticket = self._tickets.get(output.request_id)
            if ticket is not None:
                self._take(output, ticket)

    def _take(self, output: Any, ticket: Ticket) -> None:
        answer = output.outputs[0]
        ticket.push(answer.text[len(ticket.text) :])
        watch = self._watches.get(output.request_id)
        if output.finished:
            self._forget(output.request_id)
            ticket.finish(completion(output, answer, ticket))
        elif watch is not None and watch.sees_loop(answer.token_ids):
            self.drop(ticket)
            ticket.finish(completion(output, answer, ticket, reason="runaway"))

    def _forget(self, number: str) -> None:
        del self._tickets[number]
        self._watches.pop(number, None)

    def drop(self, ticket: Ticket) -> None:
        """Abort the ticket's sequence."""
        for number in [number for number, one in self._tickets.items() if one is ticket]:
            self._forget(number)
            self._engine.abort_request([number])

    def close(self) -> None:
        """End vLLM's processes: all their memory goes with them."""
        engine, self._engine = self._engine, None
        self._tickets.clear()
        self._watches.clear()
        if engine is not None:
            engine.engine_core.shutdown()
