"""Where our engine's own thread spends its time on the mixed load, in processor seconds of that thread.

``python benchmarks/profile_load.py [--model 120m] [--quick] [--first] [--reuse] [--slots 16]`` drives the
backend by hand and prints a profile.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import threading
import time
from pathlib import Path

import torch
from load import requests
from workload import Load, chosen_load, prepare

from vlm_nb.engines.base import Ticket
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.engines.transformers import TransformersBackend


def drive(backend: TransformersBackend, load: Load) -> int:
    """Answer the load on this thread; returns the steps."""
    everyone = [Ticket(request) for request in requests(load)]
    waiting, steps = list(everyone), 0
    while waiting or backend.running:
        room = max(0, min(backend.free_slots(), 2 * backend.slots - len(backend.running)))
        backend.admit(waiting[:room])
        del waiting[:room]
        backend.step()
        steps += 1
    assert not any(ticket.result(0).error for ticket in everyone)
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("demo", "120m"), default="demo")
    parser.add_argument("--reuse", action="store_true")
    parser.add_argument("--quick", action="store_true", help="24 requests over 16 small images")
    parser.add_argument("--first", action="store_true", help="the first token of each request alone")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--lines", type=int, default=60)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    load = chosen_load(quick=asked.quick, first=asked.first)
    with tempfile.TemporaryDirectory() as place:
        folder = prepare(asked.model, Path(place))
        spec = LoadSpec(
            model=str(folder),
            dtype=asked.dtype,
            max_batch_size=asked.slots,
            engine_args={"reuse": asked.reuse},
        )
        backend = TransformersBackend(spec)
        with backend.context():
            backend.open(lambda progress: None, threading.Event())
            drive(backend, Load(load.images, load.items[:4]))
            profile = cProfile.Profile(time.thread_time)
            steps = profile.runcall(drive, backend, load)
            backend.close()
    print(f"{steps} steps")
    pstats.Stats(profile).sort_stats("cumtime").print_stats(asked.lines)


if __name__ == "__main__":
    main()
