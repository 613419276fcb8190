"""The magics in a terminal: IPython as a process of its own, fed line by line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

SESSION = """\
%load_ext vlm_nb
import vlm_nb
boxes = '```json\\n[{"bbox_2d": [28, 28, 84, 56], "label": "car"}]\\n```'
script = {"Locate": boxes, "": "a red \\x1b[31mcar"}
vlm_nb.load("scripted", engine="scripted", script=script) and None
%vqa a.png What is it?
%ground a.png the car
answer = %vqa a.png What is it?
answer
%vqa gone.png What?
%vlm load other --engine scripted --engine_args {'load_seconds':0.3}
%vlm status
"""


def session(folder: Path) -> str:
    """What the terminal shows."""
    environment = {**os.environ, "IPYTHONDIR": str(folder / "ipython"), "TERM": "dumb"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), environment.get("PYTHONPATH", "")])
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "IPython",
        "--simple-prompt",
        "--no-banner",
        "--colors=nocolor",
    ]
    done = subprocess.run(
        command,
        input=SESSION,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=120,
        check=False,
    )
    return done.stdout


def test_a_terminal_session(tmp_path: Path) -> None:
    Image.new("RGB", (112, 84), "red").save(tmp_path / "a.png")
    shown = re.split(r"^In \[\d+\]: ", session(tmp_path), flags=re.MULTILINE)
    asked, grounded, assigned, value, missing, loaded, status = shown[6:13]
    assert asked.count("a red") == 1
    assert "\x1b[31m" not in asked
    assert re.search(r"Out\[\d+\]: scripted · ", asked)
    (overlay,) = re.findall(r"overlay: (\S+)", grounded)
    with Image.open(overlay) as drawn:
        assert drawn.size[0] > 0
    assert "1 car" in grounded
    assert assigned.count("a red") == 1
    assert value.count("a red") == 1
    line = f"SourceNotFound: no file, folder or variable 'gone.png'. The working folder is {tmp_path}."
    assert missing.strip() == f"{line} [docs/troubleshooting.md#sourcenotfound]"
    assert "other: loading" in loaded
    assert "other · cpu" in loaded
    assert "current  other" in status
