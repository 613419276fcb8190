"""Measure the default engine on a GPU: real sizes, random weights, in 16, 8 and 4 bit.

    python benchmarks/gpu.py --shape 3b                          # bf16, 8bit and 4bit, a table each
    python benchmarks/gpu.py --shape 7b --how bf16 --compile --jpeg --squeeze 0.3
    python benchmarks/gpu.py --shape tiny --device cpu           # does the script itself work?

The folder is written once, its weights drawn on the GPU; loading finds it in the page cache. Answers have the
lengths that were asked for. ``--cudnn`` lets attention use cuDNN's kernels, which the engine leaves out
because they are planned for every new shape. Random weights have few outliers; with real ones 8 bit
is slower.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from gauges import back_offs, bandwidth, in_use, peak, read_bytes, watched_peak, widths
from load import alone, first_tokens, machine, opened, ours
from table import Result, against_the_engine, photographs, show
from workload import SHAPES, Load, distinct_load, prepare

import vlm_nb
from vlm_nb.engines.base import Engine
from vlm_nb.engines.hf import devices
from vlm_nb.engines.hf.devices import in_gib
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.errors import VLMError

HOW = ("bf16", "8bit", "4bit")
SIDES = (448, 1024)
LENGTH = 32
TURNS = 3


# The parts --------------------------------------------------------------------------------------------------


def keywords(how: str, asked: argparse.Namespace) -> dict[str, Any]:
    return {
        "dtype": "bfloat16",
        "quantization": None if how == "bf16" else how,
        "device_map": str(asked.device),
        "max_batch_size": asked.batch,
        "compile": asked.compile,
        "attn_implementation": asked.attention,
    }


def one_way(folder: Path, how: str, speed: float, asked: argparse.Namespace) -> Iterator[Result]:
    """All figures of one loaded model; what cannot be loaded says why."""
    device = asked.device
    yield "memory before", in_use(device), ""
    began = time.perf_counter()
    engine = opened(LoadSpec(model=str(folder), **keywords(how, asked)))
    try:
        yield "seconds to load", f"{time.perf_counter() - began:.1f}", ""
        yield "memory with the model", in_use(device), ""
        yield from facts(engine)
        ours_exactly(engine, distinct_load(images=4, sides=SIDES, tokens=LENGTH, seed=1))
        yield from a_request_alone(engine, speed)
        yield from questions(engine)
        yield from images_in_batch(engine, device, asked.images)
    finally:
        engine.close()
    yield "memory after unload", in_use(device), ""
    report = engine.memory
    sizes = (report.before, report.loaded, report.after)
    yield "the engine's report: before, loaded, after", ", ".join(in_gib(size or 0) for size in sizes), ""


def facts(engine: Engine) -> Iterator[Result]:
    info = engine.info
    yield "weights, estimated", f"{in_gib(info.memory)}, {in_gib(info.details['estimated bytes'])}", ""
    yield "attention, loop", f"{info.details['attention']}, {info.details['loop']}", ""
    for made in ("compile", "CUDA graphs"):
        if made in info.details:
            yield made, info.details[made], ""


def a_request_alone(engine: Engine, speed: float) -> Iterator[Result]:
    """Against what reading the weights once for each token allows."""
    load = distinct_load(images=1, sides=(448, 448), tokens=LENGTH)
    found = statistics.median(alone(engine, load) for _ in range(TURNS + 2))
    size = read_bytes(engine.backend._loaded.model)
    yield "tokens/s of a request alone", f"{found:.1f}", ""
    yield f"the most at {speed / 1e9:.0f} GB/s, {in_gib(size)} a token", f"{speed / size:.1f}", ""
    yield "share of that", f"{found * size / speed:.0%}", ""


def questions(engine: Engine) -> Iterator[Result]:
    load = distinct_load(images=5, sides=(1024, 1024), tokens=LENGTH, widest=1, seed=2)
    first, second = first_tokens(engine, load, len(load.images))
    yield "first token of the 1st question on 1036 × 1036 px, ms", f"{first * 1000:.0f}", ""
    yield "of the 2nd", f"{second * 1000:.0f} ({second / first:.2f} ×)", ""


def images_in_batch(engine: Engine, device: torch.device, images: int) -> Iterator[Result]:
    loads = [distinct_load(images=images, sides=SIDES, tokens=LENGTH, seed=3 + n) for n in range(TURNS)]
    watched_peak(device)
    times = []
    with widths() as rows:
        for load in loads:
            began = time.perf_counter()
            ours_exactly(engine, load)
            times.append(time.perf_counter() - began)
    rate = images / statistics.median(times)
    yield (
        f"images/s in batch ({images} of {SIDES[0]} to {SIDES[1]} px, {LENGTH} tokens each)",
        f"{rate:.2f}",
        "",
    )
    yield "new tokens/s in batch", f"{rate * LENGTH:.0f}", ""
    yield "rows in a step: most, mean", f"{max(rows)} of {engine.slots}, {statistics.mean(rows):.1f}", ""
    yield "memory at its most in batch", peak(device), ""


def ours_exactly(engine: Engine, load: Load) -> None:
    """Answer the load; an answer of another length would make the figures wrong."""
    tokens, wanted = ours(engine, load), sum(item.tokens for item in load.items)
    if tokens != wanted:
        raise SystemExit(f"{tokens} new tokens, not the {wanted} that were asked for")


def files(folder: Path, how: str, paths: list[Path], asked: argparse.Namespace) -> Iterator[Result]:
    options = keywords(how, asked) | {"max_pixels": 200_704, "engine_args": {"reuse": False}}
    model = vlm_nb.load(str(folder), **options)
    try:
        yield from against_the_engine(model, paths, how)
    finally:
        model.unload()


def squeezed(folder: Path, how: str, asked: argparse.Namespace) -> Iterator[Result]:
    """The batch with a share of the memory only, of which the engine is not told: it must back off."""
    device, name = asked.device, f"with {asked.squeeze:.0%} of the memory: "
    devices.release_memory()
    torch.cuda.set_per_process_memory_fraction(asked.squeeze, device)
    told, devices.process_share = devices.process_share, lambda device: 1.0
    try:
        engine = opened(LoadSpec(model=str(folder), **keywords(how, asked)))
        try:
            load = distinct_load(images=asked.images, sides=SIDES, tokens=LENGTH, seed=9)
            before, began = engine.slots, time.perf_counter()
            with back_offs() as seen:
                ours_exactly(engine, load)  # raises what any answer failed with
            rate = asked.images / (time.perf_counter() - began)
            yield f"{name}answered, images/s", f"all {asked.images}, {rate:.2f}", ""
            yield f"{name}slots before, after", f"{before}, {engine.slots}", ""
            yield f"{name}times it backed off", f"{len(seen)}", ""
        finally:
            engine.close()
    finally:
        devices.process_share = told
        torch.cuda.set_per_process_memory_fraction(1.0, device)


# ------------------------------------------------------------------------------------------------------------


def measure(place: Path, asked: argparse.Namespace) -> None:
    folder = prepare(asked.shape, place / "model", str(asked.device))
    devices.release_memory()
    paths = photographs(place / "jpeg", asked.images) if asked.jpeg else []
    speed = bandwidth(asked.device)
    for how in asked.how or HOW:
        parts = [lambda how=how: one_way(folder, how, speed, asked)]
        parts += [lambda how=how: files(folder, how, paths, asked)] if asked.jpeg else []
        parts += [lambda how=how: squeezed(folder, how, asked)] if asked.squeeze else []
        print(f"\n{asked.shape}, {how}{', compiled' if asked.compile else ''}\n", flush=True)
        show(result for part in parts for result in honestly(part()))


def honestly(results: Iterator[Result]) -> Iterator[Result]:
    """``results``; an error of the engine is a line of the table, and the others go on."""
    try:
        yield from results
    except VLMError as error:
        yield "failed", f"{type(error).__name__}: {error}", ""


def chosen_device(name: str) -> torch.device:
    """With its number. Exits where there is no such GPU."""
    if name == "cpu":
        return torch.device(name)
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; --device cpu with --shape tiny tries the script itself")
    try:
        return torch.device("cuda", devices.target_device(name).index or 0)
    except VLMError as error:
        raise SystemExit(str(error)) from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=[name for name in SHAPES if name != "120m"], default="3b")
    parser.add_argument("--how", choices=HOW, action="append", help="default: all three")
    parser.add_argument("--device", default="cuda", help='"cuda", "cuda:1", or "cpu" to try the script')
    parser.add_argument("--batch", type=int, help="rows at most; the engine's own choice otherwise")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--attention", help='attn_implementation, such as "flash_attention_2"')
    parser.add_argument("--cudnn", action="store_true", help="attention may use cuDNN's kernels")
    parser.add_argument("--jpeg", action="store_true", help="a table of 12-megapixel files, too")
    parser.add_argument("--squeeze", type=float, metavar="SHARE", help="of the GPU's memory, 0 to 1")
    asked = parser.parse_args()
    asked.device = chosen_device(asked.device)
    if asked.device.type != "cuda" and asked.squeeze:
        raise SystemExit("--squeeze needs a GPU: a processor's memory has no such limit")
    warnings.simplefilter("ignore")
    if asked.cudnn:
        devices.attention_kernels = lambda device: contextlib.nullcontext()
    with tempfile.TemporaryDirectory() as place:
        measure(Path(place), asked)
    print(f"\n{machine(torch.get_num_threads())}, {os.cpu_count()} cores", flush=True)


if __name__ == "__main__":
    main()
