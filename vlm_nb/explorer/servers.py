"""Servers with OpenAI's chat interface: addresses to choose from, and what to load from one.

A key comes from the environment variable of its own host, or from what Python code gave for the very same
address; it is never typed, shown or sent to the browser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..engines.remote.client import list_models
from ..engines.remote.presets import PRESETS, checked_url
from ..errors import OptionError, VLMError
from .screen import Screen
from .threads import Worker

if TYPE_CHECKING:
    from ..model import VLM

SERVER = "server"
"""The device that stands for a server in the widget."""
_ANYWHERE = ("generation_config", "max_pixels", "min_pixels", "family")
"""Load keywords that mean the same whatever server they were given for."""


def address_of(model: VLM) -> str | None:
    """The address of the server that runs ``model``; None where this process does."""
    return model.info.device if model.engine.name == "openai" else None


def addresses(loaded: Sequence[VLM]) -> list[dict[str, str]]:
    """Servers of loaded models, then the presets: what to type, and a hint."""
    found = {address: "in use" for model in loaded if (address := address_of(model))}
    found.update({name: preset.url for name, preset in PRESETS.items()})
    return [{"name": name, "hint": hint} for name, hint in found.items()]


def given(options: Mapping[str, Any]) -> str:
    """The server that Python code named for the models of this widget; empty where it named none."""
    return str(options.get("base_url") or "openai") if options.get("engine") == "openai" else ""


def url_of(address: str) -> str:
    """The URL behind a preset's name or an address. Raises OptionError, which repeats no credentials."""
    preset = PRESETS.get(address.lower())
    return preset.url if preset else checked_url(address)


def load_keywords(address: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of ``vlm_nb.load`` for a model at ``address``.

    ``options`` are those given in Python: where they name this server they all count; of those for another
    only what holds anywhere, so that a key never goes to a host that it was not given for.
    """
    here = given(options)
    mine = bool(here) and url_of(here) == url_of(address)
    kept = options if mine else {name: options[name] for name in _ANYWHERE if name in options}
    return {**kept, "engine": "openai", "base_url": address}


def models_at(address: str, options: Mapping[str, Any]) -> list[str]:
    """The names of the models that the server offers. Raises OptionError and LoadError."""
    return list_models(address, load_keywords(address, options).get("api_key"))


class ServerDesk:
    """The servers that were asked for their models, on a thread of its own: one that is off takes seconds."""

    def __init__(
        self, screen: Screen, worker: Worker, options: Mapping[str, Any], changed: Callable[[], None]
    ) -> None:
        self._screen, self._worker, self._options, self._changed = screen, worker, options, changed
        self._asked: set[str] = set()
        self.offered: dict[str, list[str]] = {}

    def look(self, message: dict[str, Any]) -> None:
        """Ask the typed server again for its models; a failure is an alert."""
        address = str(message.get("server") or "").strip()
        if address:
            url_of(address)
            self._asked.add(address)
            self._worker.put(lambda: self._look(address, None, quiet=False))

    def look_at_loaded(self, models: Sequence[VLM]) -> None:
        """Ask the servers of loaded models once, with the keys they were loaded with; no failure is told."""
        for model in models:
            address, key = address_of(model), model.spec.api_key
            if address and address not in self._asked:
                self._asked.add(address)
                self._worker.put(lambda a=address, k=key: self._look(a, k, quiet=True))  # type: ignore[misc]

    def name_at(self, address: str, name: str) -> str:
        """Return ``name``, or the server's only model. Raises OptionError that lists what there is."""
        if not address:
            raise OptionError(f"Name the server: a URL, or one of {', '.join(PRESETS)}.")
        url_of(address)
        offered = self.offered.get(address, [])
        if name or len(offered) == 1:
            return name or offered[0]
        listed = f"; it offers {', '.join(offered[:8])}" if offered else ""
        raise OptionError(f"Name the server's model{listed}.")

    def _look(self, address: str, key: Any, *, quiet: bool) -> None:
        try:
            found = list_models(address, key) if key else models_at(address, self._options)
        except VLMError as error:
            if not quiet:
                self._screen.alert(error)
            return
        self.offered = {**self.offered, address: found}
        self._changed()
