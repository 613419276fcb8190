"""Operators of our own: what a compiled graph shall call as it is, and not look into.

``torch.library.custom_op`` does the same, but takes sixty microseconds for every call; an operator that is
defined by hand takes two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

NAMESPACE = "vlm_nb"
# Kept when this module is loaded again: operators end with the library that defined them.
_library: Any = globals().get("_library") or torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]


def define(schema: str, run: Callable[..., torch.Tensor], shape: Callable[..., torch.Tensor]) -> Any:
    """Return the operator of ``schema``, whose result on real tensors is ``run``'s.

    ``shape`` returns an empty tensor like it, for tracing. Arguments come as they lie in memory: a graph
    makes no copies to have them contiguous.
    """
    name, arguments = schema.split("(", 1)
    while hasattr(getattr(torch.ops, NAMESPACE), name):  # the package was imported a second time
        name += "_again"
    _library.define(f"{name}({arguments}", tags=(torch.Tag.flexible_layout,))
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", shape, lib=_library)
    return getattr(getattr(torch.ops, NAMESPACE), name).default
