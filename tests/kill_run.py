"""A run in a process of its own, to be killed: ``python kill_run.py FOLDER LEDGER ASKED [delay]``.

It asks one question about each image of FOLDER and writes a line to ASKED whenever the model is really asked.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from scripted import scripted

from vlm_nb.model import VLM
from vlm_nb.request import Request


def reading(asked: Path, delay: float = 0.0) -> VLM:
    """A model whose answer is the colour code of the image's first pixel."""
    log = os.open(asked, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def answer(request: Request) -> str:
        code = code_of(request.images[0].getpixel((0, 0)))
        os.write(log, f"{code}\n".encode())
        return f"code {code}"

    return scripted(answer, fingerprint="pixel reader", slots=4, delay=delay)


def code_of(pixel: object) -> int:
    """The number that a picture's colour spells."""
    assert isinstance(pixel, tuple)
    return int(pixel[0]) + 256 * int(pixel[1])


def main(folder: str, ledger: str, asked: str, delay: str = "0") -> None:
    model = reading(Path(asked), float(delay))
    for outcome in model(source=folder, user_prompt="which code?", ledger=ledger, show_progress=False):
        outcome.unwrap()
    model.unload()


if __name__ == "__main__":
    main(*sys.argv[1:])
