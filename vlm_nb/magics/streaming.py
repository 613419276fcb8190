"""Answers as they grow, shown once: a notebook rewrites one output, a terminal prints the pieces.

The magic's value would be shown a second time as the cell's result; a formatter swallows that one display.
"""

from __future__ import annotations

import dataclasses
import html
import inspect
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from IPython.display import display

from .. import config
from ..results import Prediction

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

SECONDS_BETWEEN = 0.1
SHOWN_TAIL = 6000


class Answers(list[Prediction]):
    """The answers to several questions about one image: a list of Predictions, shown one below the other."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from ..display import gallery_html, plain_text

        return {"text/plain": "\n\n".join(map(plain_text, self)), "text/html": gallery_html(self)}


class ShownOnce:
    """Remembers what a magic has shown, so that the cell's result does not show it again."""

    TYPES = (Prediction, Answers)

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._shown: list[tuple[Any, str]] = []

    def mark(self, value: Any, closing: str = "") -> None:
        """``value`` is on the page; ``closing`` is what a terminal still prints after its ``Out[n]:``."""
        self._shown.append((value, closing))

    def clear(self, *_: Any) -> None:
        """Forget everything (at the end of each cell)."""
        self._shown.clear()

    def _swallow(self, value: Any) -> None:
        for place, (shown, closing) in enumerate(self._shown):
            if shown is value:
                del self._shown[place]
                if not in_kernel(self._shell):
                    print(closing)  # noqa: T201 - the terminal's Out line
                return
        raise NotImplementedError  # IPython goes on with the other formatters

    @property
    def _formatter(self) -> Any:
        return getattr(self._shell.display_formatter, "ipython_display_formatter")  # noqa: B009

    def register(self) -> None:
        """Install the formatters."""
        for kind in self.TYPES:
            self._formatter.for_type(kind, self._swallow)
        self._shell.events.register("post_run_cell", self.clear)

    def unregister(self) -> None:
        """Take them out again."""
        for kind in self.TYPES:
            self._formatter.pop(kind, None)
        self._shell.events.unregister("post_run_cell", self.clear)


def in_kernel(shell: InteractiveShell) -> bool:
    """Whether outputs can be rewritten in place (a Jupyter kernel), as opposed to a terminal."""
    return getattr(shell, "kernel", None) is not None


Pieces = Generator[str, None, Prediction]


def show(shell: InteractiveShell, once: ShownOnce, pieces: Pieces, *, again: bool = False) -> Prediction:
    """Run an answer to its end, showing it as it grows. An interrupt keeps the partial text.

    With ``again`` the image is on the page already: an answer without boxes is shown without it.
    """
    view = _Page() if in_kernel(shell) else _Terminal()
    try:
        prediction = _drive(pieces, view)
    except BaseException:
        view.clear()
        raise
    bare = again and not prediction.grounded_phrases
    once.mark(prediction, view.finish(dataclasses.replace(prediction, preview=None) if bare else prediction))
    return prediction


def _drive(pieces: Pieces, view: _Page | _Terminal) -> Prediction:
    while True:
        try:
            piece = next(pieces)
            view.add(piece)
        except StopIteration as stop:
            answer: Prediction = stop.value
            return answer
        except KeyboardInterrupt as interrupt:
            if (
                inspect.getgeneratorstate(pieces) == inspect.GEN_CLOSED
            ):  # it came up through the generator, which has ended
                raise
            return _interrupted(pieces, interrupt)


def _interrupted(pieces: Pieces, interrupt: KeyboardInterrupt) -> Prediction:
    """The interrupt hit the display code: hand it to the answer, which keeps what it has."""
    try:
        pieces.throw(interrupt)
    except StopIteration as stop:
        answer: Prediction = stop.value
        return answer
    pieces.close()
    raise interrupt


class _Page:
    """One output that is rewritten; it starts empty, so that the answer's place on the page is fixed."""

    def __init__(self) -> None:
        self._text = ""
        self._last = 0.0
        self._stream = config.settings().stream
        self._handle = display(_partial(""), raw=True, display_id=True)

    def add(self, piece: str) -> None:
        self._text += piece
        now = time.monotonic()
        if self._stream and now - self._last >= SECONDS_BETWEEN:
            self._last = now
            self._handle.update(_partial(self._text), raw=True)

    def clear(self) -> None:
        self._handle.update({"text/plain": ""}, raw=True)

    def finish(self, prediction: Prediction) -> str:
        self._handle.update(prediction._repr_mimebundle_(), raw=True)
        return ""


def _partial(text: str) -> dict[str, str]:
    from ..display import visible

    shown = text if len(text) <= SHOWN_TAIL else f"… {text[-SHOWN_TAIL:]}"
    shown = visible(shown)
    style = "white-space: pre-wrap; overflow-wrap: anywhere; font-family: inherit; margin: 0; opacity: .8"
    return {
        "text/plain": shown or "…",
        "text/html": f'<div class="mathjax_ignore" style="{style}">{html.escape(shown)}▌</div>',
    }


class _Terminal:
    """Pieces go straight to the terminal; what a piece cannot do is move the cursor."""

    def __init__(self) -> None:
        self._stream = config.settings().stream
        self._open = False

    def add(self, piece: str) -> None:
        from ..display import visible

        if self._stream:
            print(visible(piece), end="", flush=True)  # noqa: T201 - this is the terminal's display
            self._open = True

    def clear(self) -> None:
        if self._open:
            print()  # noqa: T201

    def finish(self, prediction: Prediction) -> str:
        from ..display import terminal_text

        if not self._open:
            print(terminal_text(prediction))  # noqa: T201
            return ""
        print()  # noqa: T201
        return terminal_text(dataclasses.replace(prediction, caption=""))
