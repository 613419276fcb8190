"""Vision-language models in a notebook: ``%load_ext vlm_nb`` gives ``%%vqa``, ``%ground`` and ``df.vlm``.

Everything is imported when it is first used; ``import vlm_nb`` loads no torch, transformers, matplotlib,
ipywidgets or pandas.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from . import accessor

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .diagnosis import doctor
    from .errors import VLMError
    from .explorer import explore
    from .families.parsing import parse_grounding
    from .frames import to_frame
    from .model import VLM
    from .registry import current, load, loaded, unload, use
    from .request import GenerationConfig
    from .results import GroundedPhrase, Outcome, Prediction
    from .sources import load as load_image

__version__ = "0.1.0"
logging.getLogger("vlm_nb").addHandler(logging.NullHandler())

_PUBLIC: dict[str, str] = {
    "IMAGE_TOKEN": "conversations:IMAGE_TOKEN",
    "GenerationConfig": "request:GenerationConfig",
    "GroundedPhrase": "results:GroundedPhrase",
    "Outcome": "results:Outcome",
    "Prediction": "results:Prediction",
    "VLM": "model:VLM",
    "VLMError": "errors:VLMError",
    "current": "registry:current",
    "demo": "demo:",
    "doctor": "diagnosis:doctor",
    "explore": "explorer:explore",
    "export": "export:",
    "ledger": "ledger:",
    "load": "registry:load",
    "load_image": "sources:load",
    "loaded": "registry:loaded",
    "parse_grounding": "families.parsing:parse_grounding",
    "to_frame": "frames:to_frame",
    "unload": "registry:unload",
    "use": "registry:use",
}
"""Public name → "module:attribute", or "module:" for a module."""

__all__ = [
    "IMAGE_TOKEN",
    "VLM",
    "GenerationConfig",
    "GroundedPhrase",
    "Outcome",
    "Prediction",
    "VLMError",
    "__version__",
    "current",
    "demo",
    "doctor",
    "explore",
    "export",
    "ledger",
    "load",
    "load_image",
    "loaded",
    "parse_grounding",
    "to_frame",
    "unload",
    "use",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'vlm_nb' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    found = importlib.import_module(f"vlm_nb.{module}")
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics and the DataFrame accessor (``%load_ext vlm_nb``)."""
    from . import magics

    magics.register(shell)
    accessor.register()


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove what ``load_ipython_extension`` added; loaded models stay loaded."""
    from . import magics

    magics.unregister(shell)


accessor.register()  # a script has no %load_ext; without pandas this only waits for it
