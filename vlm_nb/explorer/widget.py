"""``Explorer``: the widget. Traits go to the browser only; what comes back are messages, handled at once."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from .. import registry
from ..errors import OptionError
from . import assets, keeping
from .album import Album, from_table
from .asking import AskDesk
from .choices import checked_options
from .keepsake import Keepsake
from .loading import ModelDesk
from .state import Answer, Loading, Problem
from .threads import Worker
from .turns import Turn

if TYPE_CHECKING:
    from pandas import DataFrame

    from ..comparing import Comparison
    from ..model import VLM
    from ..results import BBox, Prediction

log = logging.getLogger("vlm_nb")


class Explorer(anywidget.AnyWidget):
    """A widget to load a model and look at images with it; made by ``vlm_nb.explore``.

    ``prediction`` is the shown answer with its boxes as corrected, ``results`` all answers as a DataFrame.
    ``close()`` ends its threads, forgets its images and unloads the models that were loaded from it.
    """

    _esm = assets.esm()
    _css = assets.css()
    ui_models = traitlets.Dict().tag(sync=True)
    ui_loading = traitlets.Dict().tag(sync=True)
    ui_album = traitlets.Dict().tag(sync=True)
    ui_picture = traitlets.Dict().tag(sync=True)
    ui_answer = traitlets.Dict().tag(sync=True)
    ui_rival = traitlets.Dict().tag(sync=True)
    ui_boxes = traitlets.Dict().tag(sync=True)
    ui_history: Any = traitlets.List().tag(sync=True)
    ui_notice = traitlets.Dict().tag(sync=True)
    _closed = True  # until everything is there: ipywidgets closes what failed half-way

    def __init__(
        self,
        images: Any = None,
        *,
        model: VLM | str | None = None,
        column: str | None = None,
        recursive: bool = False,
        load_options: Mapping[str, Any] | None = None,
    ) -> None:
        options = checked_options(load_options or {})
        chosen = registry.current(model) if model is not None else None
        self._lock = threading.RLock()
        self._notices = 0
        super().__init__(ui_answer=Answer().to_dict(), ui_loading=Loading().to_dict())
        self._image_worker = Worker("vlm_nb-explorer-images")
        self._model_worker = Worker("vlm_nb-explorer-models")
        self._album = Album(self, self._image_worker, self._moved)
        self._server_worker = Worker("vlm_nb-explorer-servers")
        self._models = ModelDesk(self, self._model_worker, self._server_worker, options, chosen)
        self._desk = AskDesk(self, self._models, self._album, self._model_worker, self._keep)
        self._keepsake = Keepsake()
        self._handlers = self._table()
        self._closed = False
        self.on_msg(self._on_message)
        self._models.show()
        self._album.tell()
        self._desk.tell()
        if images is not None:
            self.add(images, column=column, recursive=recursive)

    def _table(self) -> dict[str, Callable[[dict[str, Any]], object]]:
        album, models, desk = self._album, self._models, self._desk
        return {
            "hello": lambda message: models.refresh(),
            "load": models.load,
            "cancel_load": models.cancel,
            "unload": models.unload,
            "server": models.servers.look,
            "pick": album.pick,
            "go": album.show,
            "large": album.large,
            "crop": album.crop,
            "thumbs": album.thumbs,
            "ask": desk.ask,
            "stop": desk.stop,
            "edit": desk.edit,
            "recall": desk.recall,
            "export": self._export,
        }

    # For users ----------------------------------------------------------------------------------------------

    def add(self, images: Any, *, column: str | None = None, recursive: bool = False) -> None:
        """Add images (see ``vlm_nb.explore``) and show the first of them.

        Raises OptionError for a column that is not there, and SourceError where one image was given and
        cannot be used.
        """
        if hasattr(images, "columns") and hasattr(images, "loc"):
            images = from_table(images, column)
        elif column is not None:
            raise OptionError("column= names a column of a DataFrame; the images given are none.")
        self._album.add(images, recursive=recursive)

    def ask(
        self, prompt: str = "", task: str = "ask", *, image: int | None = None, region: BBox | None = None
    ) -> Prediction:
        """Ask as the widget's Send does, wait, and return the answer; the widget shows it as it grows.

        ``task`` is ``"ask"``, ``"caption"`` or ``"ground"`` (Find: without a prompt every object). ``image``
        counts from 0 (without: the shown one), ``region`` is (x_min, y_min, x_max, y_max) in 0..1 of it.
        Interrupting stops the answer. Raises OptionError for what cannot be asked and while another answer is
        open, else the error that the widget shows.
        """
        if image is not None:
            self._album.source(image)
            self._album.go(image)
        turn = self._desk.ask({"task": task, "prompt": prompt, "region": region})
        if turn is None:
            raise OptionError("another answer is open; wait for it or press Stop.")
        try:
            return turn.wait()
        except KeyboardInterrupt:
            self._desk.stop({})
            raise

    @property
    def prediction(self) -> Prediction | None:
        """The shown answer, its boxes as corrected; None before the first. Of two compared the first's."""
        return self._desk.shown.result() if self._desk.shown else None

    @property
    def predictions(self) -> list[Prediction]:
        """All answers in order, their boxes as corrected; a comparison gives two."""
        return [prediction for turn in self._desk.turns for prediction in turn.results]

    @property
    def comparison(self) -> Comparison | None:
        """The shown answers of two models side by side; None where one was asked, or one has not answered."""
        return self._desk.shown.comparison if self._desk.shown else None

    @property
    def comparisons(self) -> list[Comparison]:
        """All comparisons in order, counted on the boxes as corrected."""
        found = (turn.comparison for turn in self._desk.turns)
        return [comparison for comparison in found if comparison is not None]

    @property
    def results(self) -> DataFrame:
        """All answers as a DataFrame: what ``vlm_nb.to_frame`` gives, and two columns. Needs pandas.

        ``turn`` numbers the questions (two compared answers have one), ``agreement`` is 0..1 between them.
        """
        return keeping.to_table(self._desk.turns)

    def to_html(self, path: str | Path) -> Path:
        """Write all answers, with images and boxes, as one page that needs nothing else; return its path.

        Raises OptionError for a file that cannot be written.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise OptionError(f"{path!r}: expected the name of an HTML file.")
        target = Path(path).expanduser()
        try:
            target.write_text(keeping.to_html(self._desk.turns), encoding="utf-8")
        except OSError as error:
            raise OptionError(f"{str(target)!r} cannot be written: {error.strerror}.") from None
        return target

    def close(self) -> None:
        """End the threads, forget the images, and unload what was loaded from here. Twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._desk.close()
        self._image_worker.close()
        self._model_worker.close()
        self._server_worker.close()
        self._models.close()
        self._album.close()
        self._handlers = {}
        super().close()

    # The seam to the parts (see ``screen.Screen``) ----------------------------------------------------------

    def show(self, **areas: Any) -> None:
        """Replace what areas of the widget show; any thread may call this."""
        with self._lock:
            if not self._closed:
                for name, value in areas.items():
                    setattr(self, f"ui_{name}", value)
                unpin(self.comm)

    def message(self, content: dict[str, Any], buffers: Sequence[bytes] = ()) -> None:
        """Send a message that is not kept; any thread may call this."""
        with self._lock:
            if not self._closed:
                self.send(content, list(buffers))
                unpin(self.comm)

    def alert(self, error: BaseException | str) -> None:
        """Show an error as an alert."""
        problem = Problem(message=error) if isinstance(error, str) else Problem.of(error)
        with self._lock:
            self._notices += 1
            self.show(notice={"number": self._notices, "message": problem.message, "detail": problem.detail})

    def _export(self, message: dict[str, Any]) -> None:
        made = keeping.export(self._desk.turns, str(message.get("format")))
        content = {"type": "file", "name": made.name, "mime": made.mime}
        self.message(content, [made.text.encode()])

    def _moved(self) -> None:
        self._desk.moved()

    def _keep(self, turn: Turn) -> None:
        # Drawing takes a moment: neither a handler nor the pump waits for it.
        self._image_worker.put(lambda: self._keepsake.update(turn))

    # From the browser ---------------------------------------------------------------------------------------

    def _on_message(self, _: Any, content: Any, buffers: list[Any]) -> None:
        kind = content.get("type") if isinstance(content, dict) and not self._closed else None
        try:
            if kind == "upload":
                self._album.upload(content, buffers)
            elif kind in self._handlers:
                self._handlers[kind](content)
        except Exception as error:  # noqa: BLE001 - shown to the user, whatever it is
            self.alert(error)
        if kind is not None and "ticket" in content:
            self.message({"type": "ack", "ticket": content["ticket"]})

    def __repr__(self) -> str:
        images = len(self._album.items) if not self._closed else 0
        return f"<Explorer: {images} image{'' if images == 1 else 's'}{', closed' if self._closed else ''}>"

    def _ipython_display_(self, **options: Any) -> None:
        from IPython import display

        publish: Any = display.publish_display_data
        shown = self._repr_mimebundle_()
        data, metadata = shown if isinstance(shown, tuple) else (shown, {})
        publish(data, metadata)
        self._keepsake.display()


def unpin(comm: Any) -> None:
    """Let the browser choose again which of the kernel's threads gets its next message.

    ipykernel 7.4 sends a comm's messages to the (sub)shell under which the comm was last written to. Ours is
    written to by threads, which count as the last cell: Stop would wait behind a running cell.
    """
    getattr(comm, "__dict__", {}).pop("_reply_subshell_id", None)
