"""Loading a model from a magic: progress, an interrupt that cancels, and one line at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .. import config, registry
from ..errors import Cancelled
from ..machine import gigabytes, memory, memory_change
from .progress import LoadView

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ..model import VLM

last_change: list[str] = []
"""What the last load or unload did to the memory in use; empty before the first."""


def load_shown(shell: InteractiveShell, name: str | None, **options: Any) -> VLM:
    """Load a model (None: the ``model`` setting), showing how far it is. Raises Cancelled on an interrupt."""
    known = registry.loaded()
    before, started = memory(), time.monotonic()
    view = LoadView(shell, name or config.settings().model)
    try:
        model = registry.load(name, on_progress=view.report, **options)
    except KeyboardInterrupt:
        view.finish("")
        raise Cancelled("loading was cancelled; nothing of it stays in memory.") from None
    except BaseException:
        view.finish("")
        raise
    if model in known:
        view.finish(" · ".join([*_facts(model), "already loaded"]))
        return model
    change = memory_change(before, memory())
    last_change[:] = [f"load {model.name}: {change}"]
    seconds = time.monotonic() - started
    view.finish(" · ".join([*_facts(model), f"{seconds:.1f} s", *([change] if change else [])]))
    return model


def _facts(model: VLM) -> list[str]:
    info = model.info
    size = gigabytes(info.memory) if info.memory else None
    return [part for part in (model.name, info.device, info.dtype, info.quantization, size) if part]


def unload_shown(names: list[str]) -> None:
    """Unload the named models (the current one, if none is named) and print what it gave back."""
    before = memory()
    gone = [registry.unload(name).name for name in names] or [registry.unload().name]
    change = memory_change(before, memory())
    last_change[:] = [f"unload {', '.join(gone)}: {change}"]
    print(f"unloaded {', '.join(gone)} · {change}")  # noqa: T201 - the magic's answer
