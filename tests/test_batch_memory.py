"""Many rows under a memory ceiling: what a run holds does not grow with its table, only the columns do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
import sys, tempfile
from pathlib import Path
sys.path.insert(0, {root!r})
from benchmarks.table import resident, scripted, tiny_pngs

rows = {rows}
with tempfile.TemporaryDirectory() as folder:
    place = Path(folder)
    model, frame = scripted(), tiny_pngs(place / "files", min(rows, 2000))
    frame.head(500).vlm.caption(show_progress=False, ledger=False)
    large = frame.sample(rows, replace=True, random_state=0).reset_index(drop=True) if rows > 2000 else frame
    before = resident()
    questions = large.index.to_series().map("question {{}}".format)
    out = large.vlm.ask(questions, show_progress=False, ledger=place / "l.sqlite3")
    grown = (resident() - before) / 1e6
    assert out["answer"].notna().all()
    model.unload()
print(f"grown {{grown:.0f}} MB")
assert grown < {ceiling}, grown
"""


def run(rows: int, ceiling: int, timeout: int) -> None:
    script = SCRIPT.format(root=str(ROOT), rows=rows, ceiling=ceiling)
    command = [sys.executable, "-W", "error", "-c", script]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_three_thousand_rows_under_a_ceiling() -> None:
    run(3_000, 60, 280)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_a_hundred_thousand_rows_under_a_ceiling() -> None:
    run(100_000, 300, 1700)
