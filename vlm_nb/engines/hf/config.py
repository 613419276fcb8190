"""What a checkpoint's config says: its class, whether it needs its own code, and plain facts about it."""

from __future__ import annotations

from typing import Any

from ...errors import CapabilityError, LoadError, nearest
from .failures import first_line, needs_code
from .files import Checkpoint


def read_config(checkpoint: Checkpoint, *, trust_remote_code: bool) -> Any:
    """Return the transformers config. Raises UnsafeModel, CapabilityError or LoadError."""
    from transformers import AutoConfig

    raw = checkpoint.json("config.json")
    model_type = raw.get("model_type")
    try:
        config = AutoConfig.from_pretrained(
            checkpoint.folder, trust_remote_code=trust_remote_code, local_files_only=not trust_remote_code
        )
    except (ValueError, KeyError, ImportError, OSError, TypeError, AttributeError) as error:
        raise _bad_config(checkpoint.name, raw, model_type, error) from None
    if trust_remote_code and raw.get("auto_map"):
        return config
    _check_kind(checkpoint.name, config, raw)
    return config


def _bad_config(name: str, raw: dict[str, Any], model_type: Any, error: Exception) -> LoadError:
    from transformers import CONFIG_MAPPING, __version__

    if raw.get("auto_map") and model_type not in CONFIG_MAPPING:
        return needs_code(name)
    if not model_type:
        return LoadError(f"{name}: config.json names no model_type, so transformers cannot tell what it is.")
    if model_type not in CONFIG_MAPPING:
        close = nearest(str(model_type), CONFIG_MAPPING.keys(), count=2)
        hint = f" (known and similar: {', '.join(close)})" if close else ""
        return LoadError(
            f"{name} is of type {model_type!r}, which transformers {__version__} does not know{hint}; "
            "a newer one may: pip install -U transformers"
        )
    return LoadError(f"{name}: config.json cannot be used: {first_line(error)}")


def _check_kind(name: str, config: Any, raw: dict[str, Any]) -> None:
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return
    if raw.get("auto_map"):
        raise needs_code(name)
    raise CapabilityError(
        f"{name} is of type {config.model_type!r}, which takes no images and text together; "
        "load a vision-language model, for example Qwen/Qwen2.5-VL-3B-Instruct."
    )


def context_length(config: Any) -> int | None:
    """How many tokens prompt, images and answer may have together; each by itself in an encoder-decoder."""
    text = config.get_text_config(decoder=True)
    length = getattr(text, "max_position_embeddings", None)
    return int(length) if length else None


def kv_bytes_per_token(config: Any, item_size: int) -> int:
    """Bytes that the key-value cache takes for one token (an upper bound where layers slide or share)."""
    text = config.get_text_config(decoder=True)
    layers = getattr(text, "num_hidden_layers", 0) or getattr(text, "decoder_layers", 0) or 0
    heads = getattr(text, "num_attention_heads", 1) or 1
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    size = getattr(text, "head_dim", None) or (getattr(text, "hidden_size", 0) or 0) // heads
    return int(2 * layers * kv_heads * size * item_size)
