"""Ways to attend that are ours, and hold for some layers of a model while it is called."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any


class Way:
    """An attention function under a name of its own, for the layers that ``concerns`` picks.

    Layers read how to attend from their configuration; what it said before holds again afterwards.
    """

    def __init__(self, name: str, attend: Callable[..., Any], concerns: Callable[[Any], bool]) -> None:
        self.name = name
        self._attend = attend
        self._concerns = concerns
        self._known: weakref.WeakKeyDictionary[Any, list[Any]] = weakref.WeakKeyDictionary()

    def configs(self, model: Any) -> list[Any]:
        """The configurations of the layers concerned; makes the way known to transformers."""
        known = self._known.get(model)
        if known is None:
            from transformers import AttentionInterface  # imports torchvision: broken ones are hidden by now

            AttentionInterface.register(self.name, self._attend)
            layers = [part for part in model.modules() if hasattr(part, "config") and self._concerns(part)]
            known = list({id(layer.config): layer.config for layer in layers}.values())
            self._known[model] = known
        return known

    @contextlib.contextmanager
    def taken(self, model: Any, instead_of: str | None = None) -> Iterator[None]:
        """Let the layers attend so; with ``instead_of`` those only that would attend in that way."""
        ways = [(config, config._attn_implementation) for config in self.configs(model)]
        changed = [(config, way) for config, way in ways if instead_of in (None, way)]
        try:
            for config, _ in changed:
                config._attn_implementation = self.name
            yield
        finally:
            for config, way in changed:
                config._attn_implementation = way
