"""From a ``LoadSpec`` to a model that is ready: find, check, estimate, download, build, describe.

Each step is cheap compared with the next, so that an error comes as early as it can be known: a gated
repository before anything is fetched, a missing processor or too little memory before gigabytes are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..base import MODEL_GATE, MemoryReport, ModelInfo, Progress, raise_if_cancelled
from ..spec import LoadSpec
from . import config as configs
from . import devices, generation, loading, memory, packed, patches, quantization
from . import processor as processors
from .encoding import Encoder
from .files import ADAPTER, Checkpoint
from .hub import HubSource

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(slots=True, kw_only=True)
class Loaded:
    """A model with what is needed to ask it.

    ``start`` is the token that an encoder-decoder's answers follow, ``defaults`` are the checkpoint's own
    generation settings.
    """

    model: Any
    tokenizer: Any
    encoder: Encoder
    device: torch.device
    context: int | None
    kv_bytes: int
    eos: frozenset[int]
    start: int | None
    defaults: dict[str, Any]
    memory: MemoryReport
    info: ModelInfo


@dataclass(slots=True, kw_only=True)
class Plan:
    """What is known before the weights are read."""

    spec: LoadSpec
    device: torch.device
    checkpoint: Checkpoint
    adapter: Checkpoint | None
    config: Any
    processor: Any
    template: str | None
    dtype: Any
    quantization: Any = None
    how: str | None = None
    estimate: memory.Estimate | None = None
    details: dict[str, Any] = field(default_factory=dict)


def plan(
    spec: LoadSpec,
    progress: Callable[[Progress], None],
    cancelled: threading.Event,
    room: Mapping[str, int],
) -> Plan:
    """Do everything that can fail before the weights are read, downloads included.

    ``room`` are bytes by device that will be free by then. Raises a LoadError, OutOfMemory, OptionError or
    Cancelled.
    """
    raise_if_cancelled(cancelled)
    processors.hide_broken_torchvision()
    quantization.quiet_bitsandbytes()
    with torch.inference_mode(False):  # parameters made in inference mode could never be trained or adapted
        made = _found(spec, progress, cancelled)
        _plan_quantization(made)
    loading.check_attention(spec.attn_implementation, made.config)
    _refuse_if_too_big(made, room)
    made.checkpoint.bring_weights()
    made.checkpoint.check_weights()
    if made.adapter is not None:
        loading.check_adapter(made.adapter)
        made.adapter.bring([ADAPTER])
    raise_if_cancelled(cancelled)  # while there is nothing to undo
    return made


def load(plan: Plan, progress: Callable[[Progress], None], cancelled: threading.Event) -> Loaded:
    """Load what was planned. Raises a LoadError, OutOfMemory, OptionError or Cancelled."""
    with torch.inference_mode(False):
        _refuse_if_too_big(plan, {})
        progress(Progress(text=f"loading {plan.spec.model} on {plan.device}"))
        with MODEL_GATE.instantiate(cancelled):
            return _instantiate(plan)


def _found(spec: LoadSpec, progress: Callable[[Progress], None], cancelled: threading.Event) -> Plan:
    source = HubSource(
        token=spec.token,
        local_files_only=spec.local_files_only,
        code=spec.trust_remote_code,
        progress=progress,
        cancelled=cancelled,
    )
    device = devices.target_device(spec.device_map)
    dtype = devices.compute_dtype(spec.dtype, device)
    checkpoint = source.find(spec.model, spec.revision)
    config = configs.read_config(checkpoint, trust_remote_code=spec.trust_remote_code)
    processor = _processor(spec, checkpoint, source, config)
    return Plan(
        spec=spec,
        device=device,
        checkpoint=checkpoint,
        adapter=source.find(spec.adapter, needs=ADAPTER_CONFIG) if spec.adapter else None,
        config=config,
        processor=processor,
        template=processors.chosen_template(processor, spec.chat_template),
        dtype=dtype,
    )


def _processor(spec: LoadSpec, checkpoint: Checkpoint, source: HubSource, config: Any) -> Any:
    if spec.processor:
        checkpoint = source.find(spec.processor, spec.processor_revision)
    return processors.load_processor(checkpoint, config, trust_remote_code=spec.trust_remote_code)


def _plan_quantization(plan: Plan) -> None:
    spec = plan.spec
    own = quantization.own_quantization(plan.config)
    plan.how = own or spec.quantization
    family = spec.quantization_skips(plan.config.model_type) if spec.quantization_skips else ()
    keep = list(family)
    if not own:
        kind = loading.auto_class(plan.config, trust_remote_code=spec.trust_remote_code)
        empty = memory.skeleton(plan.config, kind, trust_remote_code=spec.trust_remote_code)
        keep = quantization.modules_to_keep(empty, family)
        if spec.quantization == "4bit" and plan.device.type == "cpu":
            keep += quantization.without_kernel(empty, keep)
        plan.estimate = memory.estimate(empty, plan.config, plan.dtype, spec.quantization, keep)
    plan.quantization = quantization.quantization_config(spec, plan.config, keep, plan.dtype, plan.device)
    if spec.quantization_config is not None:
        plan.how, plan.estimate = quantization.name_of(spec.quantization_config), None
    if plan.how:
        plan.details["kept in 16 bit"] = keep


def _refuse_if_too_big(plan: Plan, room: Mapping[str, int]) -> None:
    wanted = plan.estimate or memory.from_files(plan.checkpoint, plan.config)
    plan.details["estimated bytes"] = wanted.weights
    if isinstance(plan.spec.device_map, dict):
        return  # spread by hand: the user has done the sum
    free, place = devices.room(plan.spec.device_map, plan.device)
    freed = sum(size for name, size in room.items() if name.split(":")[0] == plan.device.type)
    memory.refuse_if_too_big(plan.spec.model, wanted, free, place, quantised=plan.how, freed=freed)


def _instantiate(plan: Plan) -> Loaded:
    before = devices.used_memory(plan.device)
    model = loading.build(
        plan.checkpoint,
        plan.config,
        plan.spec,
        device=plan.device,
        dtype=plan.dtype,
        quantization=plan.quantization,
    )
    if plan.adapter is not None:
        loading.add_adapter(model, plan.adapter)
    patches.embed_by_products(model)
    if plan.device.type == "cpu" and plan.spec.engine_args.get("pack", True):
        size = packed.pack(model, devices.free_memory(plan.device))
        plan.details |= {"packed bytes": size} if size else {}
    return _describe(plan, model, before)


def _describe(plan: Plan, model: Any, before: int | None) -> Loaded:
    defaults = generation.take_over(model, plan.processor.tokenizer)
    context = configs.context_length(plan.config)
    # a processor with code of its own may keep state: what it returned before may not be what it would now
    remember = plan.spec.engine_args.get("reuse", True) and not plan.spec.trust_remote_code
    return Loaded(
        model=model,
        tokenizer=plan.processor.tokenizer,
        encoder=Encoder(plan.processor, plan.config, plan.template, context, remember=remember),
        device=devices.input_device(model, plan.device),
        context=context,
        kv_bytes=configs.kv_bytes_per_token(plan.config, model.dtype.itemsize),
        eos=generation.end_tokens(model),
        start=generation.start_token(model),
        defaults=defaults,
        memory=MemoryReport(device=str(plan.device), before=before, loaded=devices.used_memory(plan.device)),
        info=_info(plan, model, context, defaults),
    )


def _info(plan: Plan, model: Any, context: int | None, defaults: dict[str, Any]) -> ModelInfo:
    plan.details["attention"] = loading.attention_of(model.config)
    return ModelInfo(
        name=plan.spec.model,
        model_type=plan.config.model_type,
        device=str(plan.device),
        dtype=str(model.dtype).removeprefix("torch."),
        quantization=plan.how,
        revision=plan.checkpoint.revision,
        fingerprint=plan.checkpoint.fingerprint,
        memory=memory.measured(model),
        context_length=context,
        chat_template=plan.template,
        generation_defaults=defaults,
        details=plan.details,
        **processors.image_facts(plan.processor),
    )
