"""What this process uses and what this machine keeps: memory, and the vision models in the local cache."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


def gigabytes(count: float | None) -> str:
    """Return bytes as a short text: "5.9 GB", "31 MB"."""
    if count is None:
        return "unknown"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def memory() -> dict[str, int]:
    """Bytes in use by this process: "process", and each accelerator that torch (if imported) has used."""
    used = {}
    try:
        import psutil

        used["process"] = int(psutil.Process().memory_info().rss)
    except ImportError:
        pass
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        used |= {f"cuda:{i}": int(torch.cuda.memory_allocated(i)) for i in range(torch.cuda.device_count())}
    if torch is not None and torch.backends.mps.is_available():
        used["mps"] = int(torch.mps.current_allocated_memory())
    return used


def memory_change(before: dict[str, int], after: dict[str, int]) -> str:
    """One line of what changed: "cuda:0 5.9 GB → 12 MB, process 3.1 GB → 1.2 GB"."""
    places = [place for place in sorted(after) if before.get(place, 0) or after[place]]
    return ", ".join(
        f"{place} {gigabytes(before.get(place, 0))} → {gigabytes(after[place])}" for place in places
    )


# The local cache --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A vision model in the Hugging Face cache. ``size`` is in bytes on disk."""

    name: str
    model_type: str
    size: int


def model_cache() -> Path:
    """The folder that Hugging Face libraries keep models in, whether or not it exists."""
    home = Path(
        os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    )
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def cached_models() -> list[CachedModel]:
    """The vision-language models that are in the local cache, by name. Reads their ``config.json`` only."""
    return sorted(_cached(), key=lambda model: model.name.lower())


def _cached() -> Iterator[CachedModel]:
    for folder in model_cache().glob("models--*"):
        settings = next(iter(sorted(folder.glob("snapshots/*/config.json"))), None)
        kind = _vision_type(settings) if settings else None
        if kind is not None:
            name = folder.name.removeprefix("models--").replace("--", "/")
            size = sum(f.stat().st_size for f in folder.glob("blobs/*") if f.is_file())
            yield CachedModel(name, kind, size)


def _vision_type(file: Path) -> str | None:
    """The ``model_type`` of a ``config.json`` if it is a vision-language model's."""
    from .families import families

    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        kind = str(values["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = any(kind in family.model_types for family in families())
    return kind if known or "vision_config" in values or "vision_tower" in values else None
