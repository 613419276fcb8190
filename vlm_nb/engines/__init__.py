"""Engines: what runs a model. ``ENGINES`` names them; nothing imports a backend before it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ..errors import OptionError, unknown_option
from .remote.presets import gguf_command

if TYPE_CHECKING:
    from .base import Backend
    from .spec import LoadSpec

ENGINES: dict[str, str] = {
    "transformers": "vlm_nb.engines.transformers:TransformersBackend",
    "openai": "vlm_nb.engines.openai:OpenAIBackend",
    "vllm": "vlm_nb.engines.vllm:VLLMBackend",
    "ray": "vlm_nb.engines.ray:RayBackend",
    "scripted": "vlm_nb.engines.scripted:ScriptedBackend",
}
"""Name → "module:class". A backend class takes a ``LoadSpec``."""


def make_backend(spec: LoadSpec) -> Backend:
    """Return a new backend of ``spec.engine``; raises OptionError naming the nearest engine.

    A GGUF file is nothing that transformers could load: the error names the command that serves it.
    """
    if spec.engine not in ENGINES:
        raise unknown_option("engine", spec.engine, ENGINES)
    if spec.engine in ("transformers", "ray") and spec.model.lower().endswith(".gguf"):
        raise OptionError(gguf_command(spec.model))
    module, _, attribute = ENGINES[spec.engine].partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)(spec)
    return backend
