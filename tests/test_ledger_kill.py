"""SIGKILL at any moment, and two kernels at once: every row ends recorded once and right."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from kill_run import code_of, reading
from PIL import Image

from vlm_nb.ledger.store import Ledger

ROWS = 300
HELPER = Path(__file__).with_name("kill_run.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose colour spells their number."""
    made = tmp_path_factory.mktemp("numbered")
    for number in range(ROWS):
        Image.new("RGB", (56, 56), (number % 256, number // 256, 0)).save(made / f"{number:03}.png")
    return made


def start(folder: Path, ledger: Path, asked: Path, delay: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(HELPER), str(folder), str(ledger), str(asked), str(delay)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def lines(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def recorded(ledger: Path) -> dict[int, str]:
    """Number of the image → its recorded caption; fails where a row is there twice."""
    if not ledger.exists():
        return {}
    made = Ledger(ledger)
    rows = list(made.rows())
    made.close()
    names = Counter(Path(row["source"]).stem for row in rows)
    assert not [name for name, count in names.items() if count > 1]
    return {int(Path(row["source"]).stem): row["caption"] for row in rows}


def kill_once(folder: Path, place: Path, seed: int) -> None:
    rng = random.Random(seed)
    ledger, first, second = place / f"l{seed}.sqlite3", place / f"first{seed}", place / f"second{seed}"
    process = start(folder, ledger, first, 0.002)
    wanted = rng.randrange(ROWS)
    deadline = time.monotonic() + 60
    while len(lines(first)) < wanted and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(rng.random() * 0.01)
    process.send_signal(signal.SIGKILL)
    output = process.communicate()[0]
    assert process.returncode in (0, -signal.SIGKILL), output
    committed = recorded(ledger)
    model = reading(second, 0.002)
    outcomes = model(source=folder, user_prompt="which code?", ledger=ledger, show_progress=False)
    model.unload()
    captions = [outcome.unwrap().caption for outcome in outcomes]
    assert captions == [f"code {number}" for number in range(ROWS)]
    assert recorded(ledger) == {number: f"code {number}" for number in range(ROWS)}
    again = Counter(lines(second))
    assert set(again) == set(range(ROWS)) - set(committed), "what was committed is not computed again"
    assert set(again.values()) <= {1}
    assert len(committed) >= len(lines(first)) - 20, "only what was under way may be missing"


@pytest.mark.parametrize("seed", range(3))
def test_killed_runs_go_on_where_they_were(folder: Path, tmp_path: Path, seed: int) -> None:
    kill_once(folder, tmp_path, seed)


@pytest.mark.slow
def test_killed_at_twenty_moments(folder: Path, tmp_path: Path) -> None:
    for seed in range(100, 120):
        kill_once(folder, tmp_path, seed)


def test_two_processes_on_one_ledger(folder: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "l.sqlite3"
    processes = [start(folder, ledger, tmp_path / f"asked{n}", 0.002) for n in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert not b"".join(outputs).strip(), "no warning: neither got in the other's way"
    assert recorded(ledger) == {number: f"code {number}" for number in range(ROWS)}
    assert {*lines(tmp_path / "asked0"), *lines(tmp_path / "asked1")} == set(range(ROWS))


def test_the_helper_reads_what_the_pictures_say() -> None:
    assert code_of((44, 1, 0)) == 300
