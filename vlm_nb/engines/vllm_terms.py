"""Our words in vLLM's, and vLLM's answers and errors in ours; vLLM is imported where its objects are made."""

from __future__ import annotations

from typing import Any

from ..errors import (
    Cancelled,
    CapabilityError,
    ContextTooLong,
    GenerationError,
    LoadError,
    OptionError,
    OutOfMemory,
    SchemaError,
    VLMError,
)
from ..request import Completion, FinishReason, GenerationConfig, Message, Request, Usage
from .base import Ticket, as_vlm_error, forget_frames
from .hf.failures import first_line
from .spec import LoadSpec, refuse

MEANINGLESS = (
    *("quantization_config", "device_map", "low_cpu_mem_usage", "adapter", "compile", "model_kwargs"),
    *("processor", "processor_revision", "attn_implementation", "local_files_only", "script"),
    *("base_url", "api_key", "max_concurrency", "error_threshold", "adjust_every"),
    *("allow_local_paths", "image_quality", "replicas", "gpus_per_replica", "address"),
)
IMAGES_PER_PROMPT = 4


def check(spec: LoadSpec) -> None:
    """Raise OptionError for keywords that mean nothing to vLLM."""
    refuse(spec, MEANINGLESS)


def engine_args(spec: LoadSpec) -> dict[str, Any]:
    """Return the keywords of ``vllm.EngineArgs``. Raises OptionError for what vLLM has no word for."""
    if spec.quantization == "8bit":
        raise OptionError(
            'vLLM loads no 8-bit bitsandbytes; use engine_args={"quantization": "fp8"} or "4bit".'
        )
    asked = {
        "model": spec.model,
        "revision": spec.revision,
        "dtype": None if spec.dtype is None else str(spec.dtype).removeprefix("torch."),
        "tensor_parallel_size": spec.tensor_parallel,
        "max_model_len": spec.max_model_len,
        "gpu_memory_utilization": spec.gpu_memory_utilization,
        "max_num_seqs": spec.max_batch_size,
        "quantization": "bitsandbytes" if spec.quantization else None,
        "limit_mm_per_prompt": {"image": IMAGES_PER_PROMPT, "video": 0},
        "trust_remote_code": spec.trust_remote_code,
        "hf_token": spec.token,
        "disable_log_stats": True,
    }
    return {**{key: value for key, value in asked.items() if value is not None}, **spec.engine_args}


def parameters(request: Request) -> Any:
    """Return the ``vllm.SamplingParams`` of a request. Raises CapabilityError for beams."""
    from vllm import SamplingParams

    config = request.generation
    if config.num_beams > 1:
        raise CapabilityError("num_beams: the vllm engine does not search with beams; leave it at 1.")
    return SamplingParams(
        max_tokens=config.max_new_tokens,
        min_tokens=config.min_new_tokens,
        stop=list(config.stop) or None,
        seed=config.seed,
        repetition_penalty=config.repetition_penalty or 1.0,
        skip_special_tokens=not request.keep_special_tokens,
        structured_outputs=_structured(request),
        logprobs=0,
        **_sampling(config),
    )


def _sampling(config: GenerationConfig) -> dict[str, Any]:
    if not config.sampling:
        return {"temperature": 0.0}
    given = {"temperature": config.temperature, "top_p": config.top_p, "top_k": config.top_k}
    return {key: value for key, value in given.items() if value is not None}


def _structured(request: Request) -> Any:
    from vllm.sampling_params import StructuredOutputsParams

    if request.schema is None:
        return None
    ((kind, value),) = request.schema.items()
    if kind == "choices":
        return StructuredOutputsParams(choice=list(value))
    return StructuredOutputsParams(**{kind: value})


_ENDINGS: dict[str, FinishReason] = {"length": "length", "abort": "cancelled"}


def completion(output: Any, answer: Any, ticket: Ticket, *, reason: FinishReason | None = None) -> Completion:
    """Read a ``RequestOutput`` that is finished, or was cut for ``reason``."""
    chosen = [
        step[token]
        for token, step in zip(answer.token_ids, answer.logprobs or (), strict=False)
        if token in step
    ]
    usage = Usage(
        prompt_tokens=len(output.prompt_token_ids or ()),
        new_tokens=len(answer.token_ids),
        seconds=ticket.seconds,
        finish_reason=reason or _ENDINGS.get(answer.finish_reason or "", "stop"),
    )
    return Completion(
        text=ticket.text,
        usage=usage,
        token_logprobs=tuple(float(one.logprob) for one in chosen) or None,
        token_texts=tuple(str(one.decoded_token or "") for one in chosen) or None,
    )


def as_dict(message: Message) -> dict[str, Any]:
    """Return a message as chat templates take it."""
    if all(isinstance(part, str) for part in message.parts):
        return {"role": message.role, "content": message.text}
    parts = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in message.parts]
    return {"role": message.role, "content": parts}


def request_error(error: BaseException) -> VLMError:
    """Return vLLM's refusal of one request as ours."""
    if isinstance(error, VLMError):
        return error
    text = first_line(forget_frames(error))
    if any(
        words in text for words in ("maximum model length", "max_model_len", "context length", "longer than")
    ):
        return ContextTooLong(f"vLLM: {text}")
    if any(words in text.lower() for words in ("grammar", "structured", "json schema", "regex")):
        return SchemaError(f"vLLM: {text}")
    return (
        GenerationError(f"vLLM refused the request: {text}")
        if isinstance(error, ValueError)
        else as_vlm_error(error)
    )


def load_error(error: Exception) -> VLMError:
    """Return what went wrong while vLLM loaded as one of ours."""
    if isinstance(error, Cancelled):
        return error
    text = first_line(forget_frames(error))
    if "out of memory" in text.lower() or "No available memory" in text:
        return OutOfMemory(
            f"vLLM ran out of memory while loading: {text} Lower max_model_len or gpu_memory_utilization, "
            "or quantise."
        )
    return LoadError(f"vLLM could not load the model: {text}")
