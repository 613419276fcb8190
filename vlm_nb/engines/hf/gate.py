"""Which models can be answered in flight: rows that join and leave a running batch.

A model must take cache, mask and positions from outside, keep its keys and values in layers that are known
here, and be of a type whose answers in flight were found equal to single ones (``tests/test_scheduler*.py``).
Everything else is answered in static batches, and says why.
"""

from __future__ import annotations

import inspect
from typing import Any

from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

IN_FLIGHT = frozenset(
    {
        *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v", "llava", "llava_next", "internvl"),
        *("idefics3", "paligemma", "gemma3"),
    }
)
"""Model types that the equality tests cover."""

PREFIX = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava"})
"""Of those, the causal ones whose prompts may begin with keys and values that are known already."""

STEPPED = frozenset(
    {
        *("qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text", "qwen3_vl_moe_text", "glm4v_text"),
        *(
            "qwen2",
            "qwen3",
            "qwen3_moe",
            "llama",
            "mistral",
            "mixtral",
            "phi3",
            "gemma",
            "granite",
            "smollm3",
        ),
    }
)
"""Language models that cache the very keys and values with which they attend, and so may take ``step``'s
cache in place of their own (``tests/test_step.py``)."""

FEATURES = PREFIX | {"glm4v"}
"""Those that take features of images in place of pixels, one after the other."""

_ARGUMENTS = {"input_ids", "attention_mask", "position_ids", "past_key_values"}
_PROCESSORS = (
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "sequence_bias"),
    *("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"),
    *("exponential_decay_length_penalty", "guidance_scale", "watermarking_config", "remove_invalid_values"),
)
_ATTENTION = ("sdpa", "eager", "flash_attention_2")


def refusal(model: Any) -> str | None:
    """Why ``model`` cannot be answered in flight; None if it can."""
    config = model.config
    if getattr(config, "is_encoder_decoder", False):
        return "an encoder-decoder model"
    if type(model).generate is not GenerationMixin.generate:
        return "the model brings its own generate()"
    if not type(model).__module__.startswith("transformers."):
        return "the model brings its own code"
    if not set(inspect.signature(model.forward).parameters) >= _ARGUMENTS:
        return "the model takes no cache, mask and positions from outside"
    if config.model_type not in IN_FLIGHT:
        return f"{config.model_type} is not among the tested types"
    return _settings(model) or _layers(DynamicCache(config=config.get_text_config(decoder=True)))


def _settings(model: Any) -> str | None:
    settings = model.generation_config
    found = [name for name in _PROCESSORS if getattr(settings, name, None)]
    if found:
        return f"the checkpoint asks for {found[0]}"
    attention = model.config.get_text_config(decoder=True)._attn_implementation
    return None if attention in _ATTENTION else f"attention {attention} is not tested"


def _layers(cache: Any) -> str | None:
    kinds = {type(layer) for layer in cache.layers}
    strange = kinds - {DynamicLayer, DynamicSlidingWindowLayer}
    return f"cache layers of {', '.join(sorted(k.__name__ for k in strange))}" if strange else None


def unexpected(cache: Any, width: int) -> str | None:
    """What is wrong with the cache of a first prefill of ``width`` columns; None if all is as known."""
    if type(cache) is not DynamicCache:
        return f"a cache of type {type(cache).__name__}"
    if cache.get_seq_length() != width:
        return f"{cache.get_seq_length()} cached columns for {width} tokens"
    return _layers(cache)


def may_share_prefixes(model: Any) -> bool:
    """Whether keys and values of a known beginning can be used again."""
    layers = DynamicCache(config=model.config.get_text_config(decoder=True)).layers
    return model.config.model_type in PREFIX and all(type(layer) is DynamicLayer for layer in layers)


def may_share_features(model: Any) -> bool:
    """Whether image features can be handed to the model in place of pixels."""
    takes = "mm_encoder_outputs" in inspect.signature(model.forward).parameters
    return takes and model.config.model_type in FEATURES
