"""Products on the CPU: weights packed by oneDNN beforehand, and patches embedded as products.

``python benchmarks/products.py`` prints milliseconds on one thread, in fp32, for the ~120 M model's shapes.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

from vlm_nb.engines.hf.patches import embed_by_products

SHAPES = ((2048, 640), (640, 2048), (32_000, 640))
PATCH = (2, 14, 14)
KEPT_COLD = 8  # so many weights in turn, for a model's own do not stay in the processor's cache


def milliseconds(work: Callable[[], object], repeats: int = 30) -> float:
    times = []
    for _ in range(repeats):
        began = time.thread_time()
        work()
        times.append(time.thread_time() - began)
    return statistics.median(times) * 1000


def packed() -> None:
    """A decode step's products: torch's ``linear``, and with packed weights."""
    packing: Any = torch.ops.mkldnn
    print("| rows | out × in | linear, ms | packed, ms |\n|---|---|---|---|")
    for rows, (out, size) in itertools.product((1, 8, 24), SHAPES):
        weights = [torch.randn(out, size) for _ in range(KEPT_COLD if out < 9000 else 1)]
        copies = [packing._reorder_linear_weight(weight, rows) for weight in weights]
        states, plain, fast = torch.randn(rows, size), itertools.cycle(weights), itertools.cycle(copies)
        as_is = milliseconds(lambda s=states, w=plain: linear(s, next(w)))
        ahead = milliseconds(
            lambda s=states, w=fast: packing._linear_pointwise(s, next(w), None, "none", [], "")
        )
        print(f"| {rows} | {out} × {size} | {as_is:.2f} | {ahead:.2f} |", flush=True)


def patches() -> None:
    """An image's patches, embedded by a convolution and by a product."""
    print("\n| patches | embedding | convolution, ms | product, ms |\n|---|---|---|---|")
    for count, size in itertools.product((256, 1600), (96, 512)):
        layer, states = nn.Conv3d(3, size, PATCH, stride=PATCH, bias=False), torch.randn(count, 3, *PATCH)
        convolved = milliseconds(lambda s=states, embed=layer: embed(s), 10)
        embed_by_products(layer)
        multiplied = milliseconds(lambda s=states, embed=layer: embed(s), 10)
        print(f"| {count} | {size} | {convolved:.2f} | {multiplied:.2f} |", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    with torch.inference_mode():
        packed()
        patches()


if __name__ == "__main__":
    main()
