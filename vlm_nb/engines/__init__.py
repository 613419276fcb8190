"""Engines: what runs a model. ``ENGINES`` names them; nothing imports a backend before it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ..errors import unknown_option

if TYPE_CHECKING:
    from .base import Backend
    from .spec import LoadSpec

ENGINES: dict[str, str] = {
    "transformers": "vlm_nb.engines.transformers:TransformersBackend",
    "openai": "vlm_nb.engines.openai:OpenAIBackend",
    "scripted": "vlm_nb.engines.scripted:ScriptedBackend",
}
"""Name → "module:class". A backend class takes a ``LoadSpec``."""


def make_backend(spec: LoadSpec) -> Backend:
    """Return a new backend of ``spec.engine``; raises OptionError naming the nearest engine."""
    if spec.engine not in ENGINES:
        raise unknown_option("engine", spec.engine, ENGINES)
    module, _, attribute = ENGINES[spec.engine].partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)(spec)
    return backend
