"""Compute docs/cluster.md's sizing table: ``python docs/tools/cluster_sizing.py``.

Formulas over the library's own estimate (``vlm_nb/engines/hf/memory.py``) of skeletons: public configs, no
weights, nothing loaded or measured. ``--check`` only says whether the page has these figures.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

PAGE = Path(__file__).parents[1] / "cluster.md"
BEGIN, END = "<!-- sizing: begin -->", "<!-- sizing: end -->"
CARDS = (24, 48, 80)
SHARE = 0.9  # of the card that a server may take: vLLM's --gpu-memory-utilization
OVERHEAD = 2.0  # GiB a card beside weights and cache: CUDA context, activations of one prefill
REQUEST = 2048  # tokens: an image of about a megapixel, the question, the answer
LEAST = 8  # requests at once below which a card is called too small
PARALLEL = (1, 2, 4, 8)
CHOSEN = ("3B", "7B", "8B-Instruct", "32B", "72B")
GIB = 2**30


@dataclass(frozen=True)
class Size:
    """Bytes of the weights in 16 bit, and of one token's keys and values."""

    name: str
    weights: int
    per_token: int

    def at_once(self, card: int, parallel: int) -> int:
        """How many requests ``parallel`` cards of that many GiB hold beside the weights."""
        free = parallel * (card * SHARE - OVERHEAD) * GIB - self.weights
        return max(0, int(free / (self.per_token * REQUEST)))

    def smallest(self, card: int) -> tuple[int, int] | None:
        """(cards, requests at once) of the smallest way that holds ``LEAST``; None where 8 cards do not."""
        ways = ((parallel, self.at_once(card, parallel)) for parallel in PARALLEL)
        return next((way for way in ways if way[1] >= LEAST), None)


def known_models() -> ModuleType:
    """``what_fits.py``, which has the public configs."""
    spec = importlib.util.spec_from_file_location("what_fits", Path(__file__).with_name("what_fits.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["what_fits"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def compute(known: Any, build: Any) -> Size:
    """Estimate one model with the library's code."""
    import torch

    from vlm_nb.engines.hf import memory
    from vlm_nb.engines.hf.config import kv_bytes_per_token

    config, model = build(known)
    found = memory.estimate(model, config, torch.bfloat16, None, ())
    return Size(known.name, found.weights, kv_bytes_per_token(config, torch.bfloat16.itemsize))


def row(size: Size) -> str:
    """One line of the table."""
    ways = [size.smallest(card) for card in CARDS]
    cells = [f"{way[0]} × → {way[1]}" if way else "–" for way in ways]
    replicas = "–" if ways[-1] is None else f"{8 // ways[-1][0]}"
    facts = [f"`{size.name}`", f"{size.weights / GIB:.1f}", f"{size.per_token / 1024:.0f}"]
    return f"| {' | '.join([*facts, *cells, replicas])} |"


def table() -> str:
    """The whole table."""
    tool = known_models()
    chosen = [
        known
        for known in tool.MODELS
        if "Qwen" in known.name and known.name.split("VL-")[1].startswith(CHOSEN)
    ]
    cards = [f"{card} GB cards → at once" for card in CARDS]
    names = ["model, 16 bit", "weights, GiB", "KiB a token", *cards, "replicas on 8 × 80 GB"]
    head = f"| {' | '.join(names)} |\n|{'---|' * len(names)}"
    return "\n".join([head, *(row(compute(known, tool.built)) for known in chosen)])


if __name__ == "__main__":
    known_models().rewrite(PAGE, (BEGIN, END), table, __doc__)
