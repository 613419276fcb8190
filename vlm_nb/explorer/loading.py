"""Loading and unloading from the widget: one worker thread, progress, cancel, memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import registry
from ..engines.base import Progress
from ..errors import Cancelled, NoModelLoaded, OptionError, OutOfMemory, VLMError
from . import choices, servers
from .choices import DEMO, Wish
from .screen import Screen
from .servers import SERVER, ServerDesk
from .state import Loading, Problem
from .threads import Worker

if TYPE_CHECKING:
    from ..model import VLM


class ModelDesk:
    """The model bar: which models there are, the one in use, and what a load is doing."""

    def __init__(
        self, screen: Screen, worker: Worker, asking: Worker, options: Mapping[str, Any], model: VLM | None
    ) -> None:
        self._screen, self._worker, self._options = screen, worker, dict(options)
        self._chosen = model
        self._devices = [{"id": "auto", "label": "Auto"}, {"id": SERVER, "label": "A server"}]
        self._looked = False
        self._cancelled = threading.Event()
        self._mine: list[VLM] = []
        self._for_question = False
        self.servers = ServerDesk(screen, asking, self._options, self.show)
        self.state = Loading()

    # Handlers: they return at once --------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show the models, and the devices and the servers' models once they are known."""
        self.show()
        if not self._looked:
            self._looked = True
            self._worker.put(self._find_devices)
        self.servers.look_at_loaded(registry.loaded())

    def load(self, message: dict[str, Any]) -> None:
        """Load the named model, or use it if it is loaded; a load under way goes on. Raises OptionError."""
        if self.state.status in ("loading", "unloading"):
            return
        wish = Wish.read(message)
        if wish.device == SERVER:
            wish = replace(wish, name=self.servers.name_at(wish.server, wish.name))
        if not wish.name:
            raise OptionError("Name a model to load: a hub id, a local folder, or demo.")
        if wish.unspecific and self._use(wish.name):
            return
        self._cancelled = threading.Event()
        self._set(Loading(status="loading", name=wish.name, text="starting"))
        self._worker.put(lambda: self._load(wish))

    def _use(self, name: str) -> bool:
        """Take a loaded model of that name (as it is told apart from others of the same name) into use."""
        models = registry.loaded()
        named = zip(models, choices.labels(models), strict=True)
        found = [model for model, label in named if name in (label, model.name)]
        if found:
            self._chosen = registry.use(found[-1])
            self._set(Loading(name=name))
            self.show()
        return bool(found)

    def cancel(self, message: dict[str, Any]) -> None:
        """Stop the load under way."""
        self._cancelled.set()

    def give_up(self) -> None:
        """Stop a load that only a question asked for; one that a person started goes on."""
        if self._for_question:
            self._cancelled.set()

    def unload(self, message: dict[str, Any]) -> None:
        """Unload the model in use."""
        model = self.current()
        if model is not None and self.state.status not in ("loading", "unloading"):
            self._set(Loading(status="unloading", name=model.name, text="freeing memory"))
            self._worker.put(lambda: self._unload(model))

    def close(self) -> None:
        """Cancel a load and unload what this widget loaded and nobody has unloaded since."""
        self._cancelled.set()
        self._chosen = None
        for model in self._mine:
            if not model.engine.closed:
                registry.unload(model)
        self._mine = []

    # On the worker thread -----------------------------------------------------------------------------------

    def current(self) -> VLM | None:
        """The model that questions go to, or None."""
        if self._chosen is not None and not self._chosen.engine.closed:
            return self._chosen
        try:
            return registry.current()
        except VLMError:
            return None

    def by_id(self, key: Any) -> VLM:
        """The loaded model with the id that ``show`` told. Raises OptionError where it is loaded no more."""
        model = next((one for one in registry.loaded() if str(id(one)) == key), None)
        if model is None:
            raise OptionError("the model to compare with is loaded no more; choose another.")
        return model

    def label(self, model: VLM) -> str:
        """What users see as the model's name: told apart from others of the same name."""
        models = registry.loaded()
        return choices.labels(models)[models.index(model)] if model in models else model.name

    def need(self) -> VLM:
        """The model in use; the demo model is loaded when there is none. Raises a LoadError."""
        model = self.current()
        if model is None:
            self._cancelled = threading.Event()
            self._set(Loading(status="loading", name=DEMO, text="no model was loaded"))
            self._for_question = True
            self._load(Wish(name=DEMO))
            self._for_question = False
            model = self.current()
        if model is None:
            raise NoModelLoaded(self.state.problem.message if self.state.problem else "no model.")
        return model

    def _load(self, wish: Wish) -> None:
        before = set(map(id, registry.loaded()))
        try:
            model, note = self._open(wish)
        except Cancelled:
            self._set(Loading(name=wish.name, note="Loading was cancelled."))
        except Exception as error:  # noqa: BLE001 - shown to the user, whatever it is
            self._set(Loading(status="error", name=wish.name, problem=Problem.of(error)))
        else:
            if id(model) not in before:
                self._mine = [*(one for one in self._mine if not one.engine.closed), model]
            self._chosen = model
            self._set(Loading(name=wish.name, note=note))
            self._worker.put(self._find_devices)

    def _open(self, wish: Wish) -> tuple[VLM, str]:
        if wish.device == SERVER:
            return self._try(wish, servers.load_keywords(wish.server, self._options)), ""
        keywords = {**self._options, **choices.load_keywords(wish.precision, wish.device)}
        if wish.name == DEMO and "engine" not in keywords:
            keywords.pop("quantization", None)
        try:
            return self._try(wish, keywords), ""
        except OutOfMemory:
            if wish.precision != "auto" or keywords.get("quantization") or not self._has_gpu():
                raise
        return self._try(wish, {**keywords, "quantization": "4bit"}), "16-bit did not fit: 4-bit."

    def _try(self, wish: Wish, keywords: dict[str, Any]) -> VLM:
        return registry.load(
            wish.name, keep=wish.keep, on_progress=self._progress, cancelled=self._cancelled, **keywords
        )

    def _has_gpu(self) -> bool:
        return any(device["id"].startswith("cuda") for device in self._devices)

    def _progress(self, report: Progress) -> None:
        self._set(replace(self.state, text=report.text, done=report.done, total=report.total))

    def _unload(self, model: VLM) -> None:
        try:
            registry.unload(model)
        except VLMError as error:
            self._set(Loading(status="error", name=model.name, problem=Problem.of(error)))
            return
        self._set(Loading(note=_freed(model)))

    def _find_devices(self) -> None:
        self._devices = choices.device_choices()
        self.show()

    # Telling the browser ------------------------------------------------------------------------------------

    def _set(self, state: Loading) -> None:
        changed = state.status != self.state.status
        self.state = state
        self._screen.show(loading=state.to_dict())
        if changed:
            self.show()

    def show(self) -> None:
        """Send the choices, the model in use, and the loaded ones that it can be compared with."""
        model, loaded = self.current(), registry.loaded()
        named = zip(loaded, choices.labels(loaded), strict=True)
        self._screen.show(
            models={
                "choices": choices.model_choices(self.servers.offered),
                "precisions": [{"id": key, "label": label} for key, label in choices.PRECISIONS.items()],
                "devices": self._devices,
                "servers": servers.addresses(loaded),
                "server": servers.given(self._options),
                "current": _facts(model, self.label(model)) if model else None,
                "rivals": [{"id": str(id(m)), "label": label} for m, label in named if m is not model],
            }
        )


def _facts(model: VLM, label: str) -> dict[str, Any]:
    info = model.info
    parts = [info.device, info.quantization or info.dtype, _memory(model)]
    return {
        "name": label,
        "model": model.name,
        "is_demo": model.is_demo,
        "facts": " · ".join(str(part) for part in parts if part),
    }


def _memory(model: VLM) -> str | None:
    used = model.info.memory
    return choices.gigabytes(used) if used else None


def _freed(model: VLM) -> str:
    report = model.engine.memory
    if report is None or report.after is None or report.loaded is None:
        return f"{model.name} was unloaded."
    return f"{model.name} was unloaded; {choices.gigabytes(max(0, report.loaded - report.after))} came free."
