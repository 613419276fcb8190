"""How long ``import vlm_nb`` takes, and ``%load_ext vlm_nb`` in a kernel that runs already.

``python benchmarks/start.py [--repeats 7]`` prints a table: medians of wall and processor milliseconds. Every
measurement is the first in its process, with compiled bytecode at hand, as an installer leaves it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable

from jupyter_client.manager import start_new_kernel

IMPORT = """
import json, time
wall, own = time.perf_counter(), time.process_time()
import vlm_nb
print(json.dumps([time.perf_counter() - wall, time.process_time() - own]))
"""
EXTENSION = """
import json, time
wall, own = time.perf_counter(), time.process_time()
get_ipython().run_line_magic("load_ext", "vlm_nb")
print(json.dumps([time.perf_counter() - wall, time.process_time() - own]))
"""


ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def imported() -> list[float]:
    command = [sys.executable, "-c", IMPORT]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT)
    return list(json.loads(done.stdout))


def extension(before: str = "") -> list[float]:
    """In a new kernel, after ``before``."""
    manager, client = start_new_kernel(kernel_name="python3", env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    try:
        printed: list[str] = []

        def keep(message: dict) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        client.execute_interactive(f"import time\n{before}", timeout=120)
        client.execute_interactive(EXTENSION, timeout=120, output_hook=keep)
        return list(json.loads("".join(printed).splitlines()[-1]))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    ways: dict[str, Callable[[], list[float]]] = {
        "import vlm_nb": imported,
        "%load_ext vlm_nb in a running kernel": extension,
        "the same, pandas imported before": lambda: extension("import pandas"),
    }
    taken: dict[str, list[list[float]]] = {name: [] for name in ways}
    for turn in range(-1, asked.repeats):  # the first one compiles
        for name, way in ways.items():
            if turn >= 0:
                taken[name].append(way())
            else:
                way()
    print("| what | wall, ms | processor, ms |\n|---|---|---|")
    for name, turns in taken.items():
        wall, own = (statistics.median(turn[n] for turn in turns) * 1000 for n in (0, 1))
        print(f"| {name} | {wall:.0f} | {own:.0f} |", flush=True)


if __name__ == "__main__":
    main()
