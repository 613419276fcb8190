"""One file per model family, and the registry that finds them."""

from __future__ import annotations

from ..errors import OptionError, unknown_option
from ..grounding import FORMATS
from .base import Family, ImageLimits
from .by_server import GEMINI, KIMI_VL, MOONDREAM, NVILA, YI_VL
from .cosmos_reason1 import COSMOS_REASON1
from .deepseek_vl2 import DEEPSEEK_VL2
from .default import DEFAULT
from .florence2 import FLORENCE2
from .general import GEMMA3, IDEFICS3, MISTRAL3
from .glm4v import GLM4V
from .internvl import INTERNVL
from .kosmos2 import KOSMOS2
from .llava import LLAVA, LLAVA_NEXT
from .minicpmv import MINICPMV
from .molmo import MOLMO, MOLMO2
from .paligemma import PALIGEMMA
from .qwen2_5_vl import QWEN2_5_VL
from .qwen2_vl import QWEN2_VL
from .qwen3_vl import QWEN3_5, QWEN3_VL
from .qwen_vl import QWEN_VL

__all__ = ["DEFAULT", "Family", "ImageLimits", "families", "family_for", "known_family", "register"]

_FAMILIES: tuple[Family, ...] = (
    *(QWEN2_5_VL, QWEN3_VL, QWEN3_5, QWEN2_VL, QWEN_VL, COSMOS_REASON1),
    *(INTERNVL, LLAVA, LLAVA_NEXT, PALIGEMMA, FLORENCE2, KOSMOS2, GLM4V, MOLMO, MOLMO2, MINICPMV),
    *(DEEPSEEK_VL2, NVILA, YI_VL, KIMI_VL, GEMINI, MOONDREAM, GEMMA3, MISTRAL3, IDEFICS3),
)
_KNOWN: dict[str, Family] = {family.name: family for family in _FAMILIES}


def register(family: Family) -> Family:
    """Make a family of your own known in this process, and return it.

    It is found as those of the package are: by its ``model_types`` where no other family has them, else by
    its ``name_patterns``, or by ``family=`` of ``load``. One of the same name is replaced, so that a notebook
    cell can run again. Raise ``version`` when a change can change an answer: the ledger tells families apart
    by name and version. Raises OptionError for a format that is not in ``grounding.FORMATS``.
    """
    if family.format is not None and family.format not in FORMATS:
        raise unknown_option("grounding format", family.format, FORMATS)
    _KNOWN[family.name] = family
    return family


def families() -> tuple[Family, ...]:
    """Return every known family (the default for unknown models is not among them)."""
    return tuple(_KNOWN.values())


def family_for(model_type: str | None, name: str | None = None) -> Family:
    """Return the family of a model: by its config's ``model_type``, else by its name, else the default.

    A family's own name serves as ``model_type`` too.
    ``name`` also tells families apart that share a model type (Cosmos-Reason1 is a ``qwen2_5_vl``).
    """
    named = _by_name(name or "")
    of_type = [family for family in _KNOWN.values() if model_type in (*family.model_types, family.name)]
    if of_type:
        return named if named in of_type and named is not None else of_type[0]
    return named or DEFAULT


def _by_name(name: str) -> Family | None:
    """Return the family with the longest pattern that occurs in ``name``."""
    hits = [(len(p), family) for family in _KNOWN.values() for p in family.name_patterns if p in name.lower()]
    return max(hits, key=lambda hit: hit[0])[1] if hits else None


def known_family(model_type: str) -> Family:
    """Return the family called ``model_type``; raises OptionError naming the nearest for an unknown one."""
    known: dict[str, Family] = {}
    for family in _KNOWN.values():
        for key in (family.name, *family.model_types):
            known.setdefault(key, family)
    if not isinstance(model_type, str):
        raise OptionError(f"model_type={model_type!r}: expected a text such as 'qwen2_5_vl'.")
    if model_type not in known:
        raise unknown_option("model type", model_type, known)
    return known[model_type]
