"""What the extras in ``pyproject.toml`` install, so that a hint names packages that every index has.

``pip install`` of an extra would only work where this package is on the index; the packages' names work in a
checkout, too.
"""

from __future__ import annotations

EXTRAS: dict[str, tuple[str, ...]] = {
    "pandas": ("pandas>=2.2",),
    "openai": ("openai>=2.0",),
    "structured": ("xgrammar>=0.1.20", "pydantic>=2.8"),
    "peft": ("peft>=0.17",),
    "heif": ("pillow-heif>=0.20",),
    "export": ("supervision>=0.25", "pycocotools>=2.0.8"),
    "vllm": ("vllm>=0.11",),
    "ray": ("ray[data]>=2.40",),
}


def command(extra: str) -> str:
    """The command that installs what ``extra`` needs, quoted for every shell."""
    return " ".join(("pip install", *(f'"{requirement}"' for requirement in EXTRAS[extra])))
