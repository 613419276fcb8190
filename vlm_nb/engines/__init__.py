"""Engines: what runs a model. ``ENGINES`` names them; nothing imports a backend before it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import unknown_option

if TYPE_CHECKING:
    from .base import Backend

ENGINES: dict[str, str] = {
    "transformers": "vlm_nb.engines.transformers:TransformersBackend",
    "openai": "vlm_nb.engines.openai:OpenAIBackend",
    "scripted": "vlm_nb.engines.scripted:ScriptedBackend",
}
"""Name → "module:class". A backend class takes a ``LoadSpec``."""


def backend_class(name: str) -> type[Backend]:
    """Return the backend class called ``name``; raises OptionError naming the nearest."""
    if name not in ENGINES:
        raise unknown_option("engine", name, ENGINES)
    module, _, attribute = ENGINES[name].partition(":")
    found: Any = getattr(importlib.import_module(module), attribute)
    return found  # type: ignore[no-any-return]
