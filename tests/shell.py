"""A real IPython shell for tests: run cells, read what they printed, displayed and left behind."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config


@dataclass
class Ran:
    """One cell: its value, what it printed and displayed, and its error as IPython shows it."""

    value: Any
    out: str
    err: str
    displays: list[dict[str, Any]] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def error_lines(self) -> list[str]:
        """The lines that the user sees of an error."""
        if self.error is None:
            return []
        render = getattr(self.error, "_render_traceback_", None)
        return list(render()) if render else [f"{type(self.error).__name__}: {self.error}", "…traceback…"]


class Shell:
    """``cell`` runs a cell as a user does; a failing one raises unless ``fails`` is used."""

    def __init__(self) -> None:
        InteractiveShell.clear_instance()
        settings = Config()
        settings.HistoryManager.enabled = False
        self.ip = InteractiveShell.instance(config=settings)
        self.ip.run_line_magic("load_ext", "vlm_nb")
        self.names: dict[str, Any] = self.ip.user_ns

    def run(self, code: str) -> Ran:
        """Run one cell and return everything that came out of it."""
        with capture_output() as caught:
            result = self.ip.run_cell(code, store_history=True)
        displays = [output.data for output in caught.outputs]
        error = result.error_before_exec or result.error_in_exec
        return Ran(result.result, caught.stdout, caught.stderr, displays, error)

    def cell(self, code: str) -> Ran:
        """Run a cell that must succeed."""
        ran = self.run(code)
        assert ran.error is None, ran.error_lines
        return ran

    def fails(self, code: str) -> str:
        """Run a cell that must fail; return its one line, without the place that explains it."""
        ran = self.run(code)
        assert ran.error is not None, f"no error; it gave {ran.value!r}"
        assert len(ran.error_lines) == 1, ran.error_lines
        line = ran.error_lines[0]
        assert "\n" not in line
        assert line in ran.out + ran.err, f"not shown: {ran.out!r}"
        assert "Traceback" not in ran.out
        told, _, place = line.rpartition(" ")
        assert place == f"[docs/troubleshooting.md#{type(ran.error).__name__.lower()}]"
        return told

    def close(self) -> None:
        """Forget the shell, the traceback that it keeps and what the interpreter remembers of it."""
        self.ip.run_line_magic("unload_ext", "vlm_nb")
        self.ip.user_ns.clear()
        # hundreds of shells that each clean up and collect garbage at exit take minutes
        atexit.unregister(self.ip.atexit_operations)
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            if hasattr(sys, name):
                delattr(sys, name)
        InteractiveShell.clear_instance()


@pytest.fixture
def shell(fresh_registry: None) -> Iterator[Shell]:
    """A shell with the extension loaded; no model is loaded before and after."""
    made = Shell()
    yield made
    made.close()
