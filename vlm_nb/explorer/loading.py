"""Loading and unloading from the widget: one worker thread, progress, cancel, memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import registry
from ..engines.base import Progress
from ..errors import Cancelled, NoModelLoaded, OutOfMemory, VLMError
from . import choices
from .choices import DEMO
from .screen import Screen
from .state import Loading, Problem
from .threads import Worker

if TYPE_CHECKING:
    from ..model import VLM


class ModelDesk:
    """The model bar: which models there are, the one in use, and what a load is doing."""

    def __init__(self, screen: Screen, worker: Worker, options: Mapping[str, Any], model: VLM | None) -> None:
        self._screen, self._worker, self._options = screen, worker, dict(options)
        self._chosen = model
        self._devices: list[dict[str, Any]] = [{"id": "auto", "label": "Auto"}]
        self._cancelled = threading.Event()
        self._mine: list[VLM] = []
        self._for_question = False
        self.state = Loading()

    # Handlers: they return at once --------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show the models, and the devices once they are known."""
        self.show()
        if len(self._devices) == 1:
            self._worker.put(self._find_devices)

    def load(self, message: dict[str, Any]) -> None:
        """Load the named model; a load under way goes on."""
        if self.state.status in ("loading", "unloading"):
            return
        name = str(message.get("model") or "").strip()
        if not name:
            self._screen.alert("Name a model to load: a hub id, a local folder, or demo.")
            return
        self._cancelled = threading.Event()
        self._set(Loading(status="loading", name=name, text="starting"))
        precision, device = str(message.get("precision", "auto")), str(message.get("device", "auto"))
        self._worker.put(lambda: self._load(name, precision, device, keep=bool(message.get("keep"))))

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
        for model in self._mine:
            if not model.engine.closed:
                registry.unload(model)

    # On the worker thread -----------------------------------------------------------------------------------

    def current(self) -> VLM | None:
        """The model that questions go to, or None."""
        if self._chosen is not None and not self._chosen.engine.closed:
            return self._chosen
        try:
            return registry.current()
        except VLMError:
            return None

    def need(self) -> VLM:
        """The model in use; the demo model is loaded when there is none. Raises a LoadError."""
        model = self.current()
        if model is None:
            self._cancelled = threading.Event()
            self._set(Loading(status="loading", name=DEMO, text="no model was loaded"))
            self._for_question = True
            self._load(DEMO, "auto", "auto", keep=False)
            self._for_question = False
            model = self.current()
        if model is None:
            raise NoModelLoaded(self.state.problem.message if self.state.problem else "no model.")
        return model

    def _load(self, name: str, precision: str, device: str, *, keep: bool) -> None:
        before = set(map(id, registry.loaded()))
        try:
            model, note = self._open(name, precision, device, keep)
        except Cancelled:
            self._set(Loading(name=name, note="Loading was cancelled."))
        except Exception as error:  # noqa: BLE001 - shown to the user, whatever it is
            self._set(Loading(status="error", name=name, problem=Problem.of(error)))
        else:
            if id(model) not in before:
                self._mine.append(model)
            self._chosen = model
            self._set(Loading(name=name, note=note))
            self._worker.put(self._find_devices)

    def _open(self, name: str, precision: str, device: str, keep: bool) -> tuple[VLM, str]:
        keywords = {**self._options, **choices.load_keywords(precision, device)}
        if name == DEMO and "engine" not in keywords:
            keywords.pop("quantization", None)
        try:
            return self._try(name, keep, keywords), ""
        except OutOfMemory:
            if precision != "auto" or keywords.get("quantization") or not self._has_gpu():
                raise
        return self._try(name, keep, {**keywords, "quantization": "4bit"}), "16-bit did not fit: 4-bit."

    def _try(self, name: str, keep: bool, keywords: dict[str, Any]) -> VLM:
        return registry.load(
            name, keep=keep, on_progress=self._progress, cancelled=self._cancelled, **keywords
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
        """Send the choices and the model in use."""
        model = self.current()
        self._screen.show(
            models={
                "choices": choices.model_choices(),
                "precisions": [{"id": key, "label": label} for key, label in choices.PRECISIONS.items()],
                "devices": self._devices,
                "current": _facts(model) if model else None,
                "loaded": [one.name for one in registry.loaded()],
            }
        )


def _facts(model: VLM) -> dict[str, Any]:
    info = model.info
    parts = [info.device, info.quantization or info.dtype, _memory(model)]
    return {
        "name": model.name,
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
