"""What tables cost: speed against other ways, the ledger's price, memory, and a restart.

``python benchmarks/table.py [--rows 100000] [--images 200] [--model demo] [--only NAME]`` prints one table.
The parts: ``speed`` and ``jpeg`` (a real model; ``--model 120m`` for a heavier one on 12-megapixel files),
``ledger``, ``memory`` and ``restart`` (a scripted engine that answers at once, so that what is measured is
ours).
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import os
import statistics
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import vlm_nb
from vlm_nb import batch
from vlm_nb.asking import Job
from vlm_nb.demo.scenes import draw_scene
from vlm_nb.engines.base import generate
from vlm_nb.model import VLM
from vlm_nb.request import GenerationConfig

Result = tuple[str, str, str]
"""What was measured, the figure, what was to be reached ("" for nothing)."""


class Took:
    """Wall and processor seconds of a call; the second is also right on a machine that others use."""

    def __init__(self, work: Callable[[], object]) -> None:
        wall, own = time.perf_counter(), time.process_time()
        work()
        self.wall, self.own = time.perf_counter() - wall, time.process_time() - own

    def __str__(self) -> str:
        return f"{self.wall:.1f} (processor {self.own:.1f})"


def scripted() -> VLM:
    """An engine that costs nothing and whose answers a ledger keeps."""
    return vlm_nb.load(
        "bench",
        engine="scripted",
        script="an answer of six words",
        engine_args={"fingerprint": "bench", "slots": 32},
    )


def tiny_pngs(folder: Path, count: int) -> pd.DataFrame:
    """A table of ``count`` different PNG files of 28 × 28 pixels and about 90 bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        path = folder / f"{number:07}.png"
        path.write_bytes(_png(number.to_bytes(3, "big")))
        paths.append(str(path))
    return pd.DataFrame({"image": paths})


def _png(colour: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 28, 28, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + colour * 28 for _ in range(28)), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# The parts ----------------------------------------------------------------------------------------------


def speed(place: Path, images: int, name: str) -> Iterator[Result]:
    """Rows per second of one real model, three ways, on the same files."""
    place.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in range(images):
        paths.append(place / f"{seed}.png")
        draw_scene(seed, size=None).image.save(paths[-1])
    model = vlm_nb.load(name)
    for path in paths[:3]:
        model.caption(path)
    slots = model.engine.slots

    def jobs(some: list[Path]) -> Iterator[Job]:
        return (model.job(path, None, "caption") for path in some)

    def static() -> None:
        for start in range(0, images, slots):
            batch.run(model, list(jobs(paths[start : start + slots])), ledger=False, show_progress=False)

    ways: dict[str, Callable[[], object]] = {
        f"one call at a time ({name}, {images} drawn images)": lambda: [model.caption(p) for p in paths],
        f"static batches of {slots}": static,
        "table run": lambda: batch.run(model, jobs(paths), ledger=False, show_progress=False),
    }
    took: dict[str, list[Took]] = {way: [] for way in ways}
    for _ in range(3):  # in turns, for a machine's load comes and goes
        for way, work in ways.items():
            took[way].append(Took(work))
    for way, turns in took.items():
        wall, own = (sorted(getattr(t, kind) for t in turns)[1] for kind in ("wall", "own"))
        yield f"rows/s, {way}", f"{images / wall:.2f} (a processor second: {images / own:.1f})", ""


def jpeg(place: Path, images: int, name: str) -> Iterator[Result]:
    """A table of 12-megapixel JPEG files, against the engine alone with the same requests ready in memory."""
    paths = photographs(place, images)
    folder = _folder(place / "model") if name == "120m" else name
    # every turn computes all; images of the size that the demo model's own limit gives, or of about 450 × 450
    options = {} if name == "demo" else {"max_pixels": 200_704}
    model = vlm_nb.load(folder, engine_args={"reuse": False}, **options)
    yield from against_the_engine(model, paths, name)
    model.unload()


def against_the_engine(model: VLM, paths: list[Path], name: str) -> Iterator[Result]:
    """Rows per second from files and from requests that are ready; the model must reuse nothing."""
    images, settings = len(paths), GenerationConfig(max_new_tokens=32)
    jobs = [dataclasses.replace(model.job(path, None, "caption"), generation=settings) for path in paths]

    def table() -> None:
        outcomes = batch.run(model, iter(jobs), ledger=False, show_progress=False)
        assert not any(error for _, error in outcomes)

    ready = [dataclasses.replace(model.asker.prepare(job).request, interactive=False) for job in jobs]

    def alone() -> None:
        assert not any(answer.error for _, answer in generate(model.engine, ready))

    list(generate(model.engine, ready[:4]))
    took: dict[str, list[Took]] = {"files": [], "engine": []}
    for _ in range(3):
        for key, work in (("engine", alone), ("files", table)):
            took[key].append(Took(work))
    for key, what in (("engine", "the engine alone"), ("files", "from 12-megapixel JPEG files")):
        wall, own = (statistics.median(getattr(t, kind) for t in took[key]) for kind in ("wall", "own"))
        yield f"rows/s, {what} ({name})", f"{images / wall:.2f} (a processor second: {images / own:.2f})", ""
    pairs = list(zip(took["engine"], took["files"], strict=True))
    share = statistics.median(one.wall / other.wall for one, other in pairs)
    yield "from files against the engine alone", f"{share:.0%}", "≥ 90 % (on a GPU)"
    decoding = Took(lambda: [model.asker.prepare(job) for job in jobs]).own / images
    yield "processor ms to read, decode and resize a file", f"{decoding * 1000:.0f}", ""


def photographs(place: Path, count: int) -> list[Path]:
    """JPEG files of 4000 × 3000 pixels with the detail of a photograph, about 4 MB each."""
    place.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        scene = (
            draw_scene(seed, size=None).image.convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC)
        )
        grain = rng.normal(0, 12, (750, 1000, 1)).repeat(4, 0).repeat(4, 1)
        paths.append(place / f"{seed}.jpg")
        Image.fromarray((np.asarray(scene) + grain).clip(0, 255).astype("uint8")).save(paths[-1], quality=90)
    return paths


def _folder(place: Path) -> str:
    import workload

    place.mkdir(parents=True, exist_ok=True)
    return str(workload.prepare("120m", place))


def ledger(place: Path, rows: int) -> Iterator[Result]:
    """What a row costs more with a ledger than without; the median of three."""
    model, frame = scripted(), tiny_pngs(place / "ledger", rows)

    def run(**options: object) -> Took:
        return Took(lambda: frame.vlm.caption(show_progress=False, **options))

    run(ledger=False)
    turns = [(run(ledger=False), run(ledger=place / f"{turn}.sqlite3")) for turn in range(3)]
    for kind, what in (("wall", "ms a row"), ("own", "processor ms a row")):
        cost = sorted(getattr(kept, kind) - getattr(without, kind) for without, kept in turns)[1]
        plain = sorted(getattr(without, kind) for without, _ in turns)[1]
        yield f"ledger, {what} ({rows:,} rows)", f"{cost / rows * 1000:.3f}", "< 2"
        yield f"the runner itself without it, {what}", f"{plain / rows * 1000:.3f}", ""
    model.unload()


def memory(place: Path, rows: int) -> Iterator[Result]:
    """How much the process grows from the 1,000th row to the last, the new columns included."""
    model, frame = scripted(), tiny_pngs(place / "files", rows)
    frame.head(1000).vlm.caption(show_progress=False, ledger=place / "warm.sqlite3")
    gc.collect()
    before = resident()
    most, done = before, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.2):
            most = max(most, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    took = Took(lambda: frame.vlm.caption(show_progress=False, ledger=place / "rows.sqlite3"))
    done.set()
    watcher.join()
    yield f"memory growth at its most, MB ({rows:,} rows)", f"{(most - before) / 1e6:.0f}", "< 300"
    yield f"the first run of {rows:,} rows, an engine that answers at once, s", str(took), ""
    model.unload()


def restart(place: Path, rows: int) -> Iterator[Result]:
    """The same table again, all of it finished (after ``memory``, whose ledger it uses)."""
    model = scripted()
    frame = pd.DataFrame({"image": sorted(str(path) for path in (place / "files").iterdir())})
    kept = place / "rows.sqlite3"
    again = Took(lambda: frame.vlm.caption(show_progress=False, ledger=kept))
    yield f"restart with {rows:,} finished rows, s", str(again), "< 10"
    careful = Took(lambda: frame.vlm.caption(show_progress=False, ledger=kept, verify=True))
    yield "the same with verify=True (every file hashed), s", str(careful), ""
    model.unload()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--only", choices=["speed", "jpeg", "ledger", "memory", "restart"], action="append")
    parser.add_argument("--threads", type=int, help="of torch; its own choice otherwise")
    asked = parser.parse_args()
    if asked.threads:
        import torch

        torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        parts: dict[str, Callable[[], Iterator[Result]]] = {
            "speed": lambda: speed(place / "scenes", asked.images, asked.model),
            "jpeg": lambda: jpeg(place / "jpeg", asked.images, asked.model),
            "ledger": lambda: ledger(place, min(asked.rows, 20_000)),
            "memory": lambda: memory(place, asked.rows),
            "restart": lambda: restart(place, asked.rows),
        }
        chosen = [part for name, part in parts.items() if asked.only is None or name in asked.only]
        show(result for part in chosen for result in part())


def show(results: Iterable[Result]) -> None:
    """Print a table, each line as soon as it is measured."""
    print("| measured | figure | to reach |\n|---|---|---|", flush=True)
    for what, figure, goal in results:
        print(f"| {what} | {figure} | {goal} |", flush=True)


if __name__ == "__main__":
    main()
