"""What each kind of server knows beyond OpenAI's interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one kind of server knows beyond the OpenAI interface.

    ``keys`` maps our generation keys to its own; ``special_tokens`` says that it takes
    ``skip_special_tokens``; ``schema`` that it takes ``response_format`` with a JSON schema; ``pattern``
    turns a regular expression into what it takes for one. ``owner`` is what it writes as ``owned_by`` in its
    model list; ``complete_list`` says that the list names all its models.
    """

    owner: str | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    special_tokens: bool = False
    schema: bool = True
    pattern: Callable[[str], dict[str, Any]] | None = None
    complete_list: bool = False


_LIKE_VLLM = {"top_k": "top_k", "repetition_penalty": "repetition_penalty", "min_new_tokens": "min_tokens"}
DIALECTS: dict[str, Dialect] = {
    "openai": Dialect(),
    "vllm": Dialect(
        owner="vllm",
        keys=_LIKE_VLLM,
        special_tokens=True,
        pattern=lambda regex: {"structured_outputs": {"regex": regex}},
        complete_list=True,
    ),
    "sglang": Dialect(
        owner="sglang",
        keys=_LIKE_VLLM,
        special_tokens=True,
        pattern=lambda regex: {"regex": regex},
        complete_list=True,
    ),
    "lmdeploy": Dialect(
        owner="lmdeploy",
        keys={**_LIKE_VLLM, "min_new_tokens": "min_new_tokens"},
        special_tokens=True,
        complete_list=True,
    ),
    "llama.cpp": Dialect(owner="llamacpp", keys={"top_k": "top_k", "repetition_penalty": "repeat_penalty"}),
    "ollama": Dialect(owner="library"),
    "transformers": Dialect(schema=False),
}
"""Server → dialect; "openai" is any other server, which is sent nothing beyond the interface."""


def dialect_of(owner: str | None) -> str:
    """Return the kind of server that writes ``owner`` in its model list; "openai" where it tells nothing."""
    return next((name for name, known in DIALECTS.items() if known.owner and known.owner == owner), "openai")
