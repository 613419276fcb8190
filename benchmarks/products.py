"""Products of small batches on the CPU: torch's ``linear`` against weights packed by oneDNN beforehand.

``python benchmarks/products.py`` prints milliseconds on one thread, in fp32, for the ~120 M model's shapes.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import linear

SHAPES = ((2048, 640), (640, 2048), (32_000, 640))
KEPT_COLD = 8  # so many weights in turn, for a model's own do not stay in the processor's cache


def milliseconds(work: Callable[[], object], repeats: int = 30) -> float:
    times = []
    for _ in range(repeats):
        began = time.thread_time()
        work()
        times.append(time.thread_time() - began)
    return statistics.median(times) * 1000


def main() -> None:
    torch.set_num_threads(1)
    packing: Any = torch.ops.mkldnn
    print("| rows | out × in | linear, ms | packed, ms |\n|---|---|---|---|")
    for rows, (out, size) in itertools.product((1, 8, 24), SHAPES):
        weights = [torch.randn(out, size) for _ in range(KEPT_COLD if out < 9000 else 1)]
        packed = [packing._reorder_linear_weight(weight, rows) for weight in weights]
        states, plain, fast = torch.randn(rows, size), itertools.cycle(weights), itertools.cycle(packed)
        with torch.inference_mode():
            as_is = milliseconds(lambda s=states, w=plain: linear(s, next(w)))
            ahead = milliseconds(
                lambda s=states, w=fast: packing._linear_pointwise(s, next(w), None, "none", [], "")
            )
        print(f"| {rows} | {out} × {size} | {as_is:.2f} | {ahead:.2f} |", flush=True)


if __name__ == "__main__":
    main()
