"""A real Jupyter kernel for tests: cells are executed over its sockets, as a front end does."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import pytest

SETUP = "%load_ext vlm_nb\nimport vlm_nb"


@dataclass
class Reply:
    """What one cell sent: every message on iopub in order, the final reply's status and all of it."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    status: str = ""
    answer: dict[str, Any] = field(default_factory=dict)

    def contents(self, kind: str) -> list[dict[str, Any]]:
        """The contents of all messages of a type."""
        return [message["content"] for message in self.messages if message["msg_type"] == kind]

    @property
    def text(self) -> str:
        """Everything that was printed."""
        return "".join(content["text"] for content in self.contents("stream"))

    @property
    def updates(self) -> list[str]:
        """The plain text of every rewriting of an output."""
        return [content["data"]["text/plain"] for content in self.contents("update_display_data")]


class Kernel:
    """A started kernel with the extension loaded."""

    def __init__(self, folder: Path) -> None:
        from jupyter_client.manager import start_new_kernel

        os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        self.manager, self.client = start_new_kernel(
            kernel_name="python3", cwd=str(folder), startup_timeout=120
        )
        self.run(SETUP)

    def send(self, code: str) -> str:
        """Start a cell; ``collect`` waits for its end."""
        return str(self.client.execute(code))

    def run(self, code: str, timeout: float = 90) -> Reply:
        """Run a cell to its end."""
        return self.collect(self.send(code), timeout)

    def collect(self, cell: str, timeout: float = 90) -> Reply:
        """Everything that the cell sends until it is idle."""
        reply = Reply()
        for message in self.messages(cell, timeout):
            reply.messages.append(message)
        answer = self.client.get_shell_msg(timeout=timeout)
        while answer["parent_header"].get("msg_id") != cell:
            answer = self.client.get_shell_msg(timeout=timeout)
        reply.answer, reply.status = answer["content"], answer["content"]["status"]
        return reply

    def messages(self, cell: str, timeout: float) -> Iterator[dict[str, Any]]:
        """The cell's messages as they come; ends when it is idle."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=0.5)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") != cell:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return
            yield message
        raise TimeoutError(f"the cell did not end within {timeout} s")

    def close(self) -> None:
        """Stop the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for a module's tests, in a folder with ``a.png`` and ``b.png``."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("kernel")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (112, 84), "red").save(folder / name)
    started = Kernel(folder)
    yield started
    started.close()
