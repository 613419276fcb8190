"""``%vlm …``: one function a subcommand."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from IPython.display import display

from .. import config, registry
from ..diagnosis import doctor
from ..engines.spec import LoadSpec
from ..errors import CapabilityError, NoModelLoaded, OptionError
from ..machine import cached_models, gigabytes, memory, model_cache
from ..report import Report, Section
from . import grammar, reproduce
from .answers import Desk
from .arguments import literal
from .guide import GUIDE
from .loading import last_change, load_shown, unload_shown
from .scope import Scope

if TYPE_CHECKING:
    from ..model import VLM

_SWITCHES = frozenset(
    {
        "keep",
        "load_in_4bit",
        "load_in_8bit",
        "local_files_only",
        "trust_remote_code",
        "compile",
        "allow_local_paths",
        "low_cpu_mem_usage",
    }
)


_PLAIN_WORDS = {
    "estimated bytes": "memory estimated before loading",
    "packed bytes": "copies of weights, laid out for this CPU",
    "loop": "questions at the same time",
    "in flight": "in flight: one joins those under way",
}
"""What ``%vlm status`` says for keys and values of ``ModelInfo.details``."""


def run(desk: Desk, line: str) -> None:
    """Carry out ``%vlm LINE``. Raises an error of one line."""
    name, _, rest = line.strip().partition(" ")
    if name in ("", "help", "--help", "-h"):
        print(GUIDE)  # noqa: T201 - the answer to %vlm
        return
    if name not in COMMANDS:
        raise grammar.unknown("command: %vlm", name, COMMANDS)
    COMMANDS[name](desk, rest)


def load_flags() -> dict[str, bool]:
    """The options of ``%vlm load``, and whether each takes a value."""
    return {f"--{key}": key not in _SWITCHES for key in LoadSpec.names()}


def _words(
    desk: Desk, rest: str, flags: Mapping[str, bool], most: int = 1
) -> tuple[list[str], dict[str, Any]]:
    """Split a subcommand's line into words and options."""
    scope = Scope(desk.shell.user_ns)
    parts = grammar.split(rest, flags, only_sources=True)
    if len(parts.sources) > most:
        extra = parts.sources[most].text
        raise OptionError(f"too many words: {extra!r} was not expected.")
    options = {
        flag.removeprefix("--"): True if value is None else literal(value, scope)
        for flag, value in parts.options
    }
    return [scope.expand(token.text) for token in parts.sources], options


def load(desk: Desk, rest: str) -> None:
    """Load a model, showing how far it is; an interrupt cancels."""
    words, options = _words(desk, rest, load_flags())
    load_shown(desk.shell, words[0] if words else None, **options)


def use(desk: Desk, rest: str) -> None:
    """Make a loaded model the current one."""
    words, _ = _words(desk, rest, {})
    if not words:
        raise OptionError("name a loaded model: %vlm use NAME")
    print(f"current model: {registry.use(words[0]).name}")  # noqa: T201


def unload(desk: Desk, rest: str) -> None:
    """Free the memory of one model, or of all."""
    words, options = _words(desk, rest, {"--all": False})
    unload_shown([model.name for model in registry.loaded()] if options else words)


def status(desk: Desk, rest: str) -> None:
    """Show what is loaded, where, and what memory it takes."""
    _words(desk, rest, {}, most=0)
    display(status_report())


def status_report() -> Report:
    """The facts of ``%vlm status``."""
    report = Report()
    models = registry.loaded()
    _list_models(report, models)
    for model in models:
        if model.info.details:
            _list_details(report.section(f"Details of {model.name}"), model.info.details)
    used = report.section("Memory in use")
    for place, count in memory().items():
        used.add(place, gigabytes(count))
    for line in last_change:
        used.add("last", line)
    return report


def _list_models(report: Report, models: list[VLM]) -> None:
    here = None
    with contextlib.suppress(NoModelLoaded):
        here = registry.current()
    section = report.section("Models", "", "name", "runs on", "memory", "engine")
    for model in models:
        state, info = "current" if model is here else "", model.info
        place = ", ".join(filter(None, (info.device, info.quantization, info.dtype))) or None
        section.add(state, model.name, place, gigabytes(info.memory), model.engine.name)
    if not models:
        report.advice.append(
            ("no model is loaded", "%vlm load NAME  (%vlm models lists what is in the cache)")
        )


def _list_details(section: Section, details: Mapping[str, Any]) -> None:
    for key, value in details.items():
        shown = gigabytes(value) if "bytes" in key and isinstance(value, int) else value
        section.add(_PLAIN_WORDS.get(key, key), _PLAIN_WORDS.get(str(shown), shown))


def models(desk: Desk, rest: str) -> None:
    """List the demo model and the vision models in the local cache."""
    _words(desk, rest, {}, most=0)
    report = Report()
    loaded = [model.name for model in registry.loaded()]
    section = report.section(f"Vision models in {model_cache()}", "name", "type", "on disk", "")
    section.add("demo", "qwen2_5_vl", "in the package", "loaded" if "demo" in loaded else "")
    for found in cached_models():
        state = "loaded" if found.name in loaded else ""
        section.add(found.name, found.model_type, gigabytes(found.size), state)
    display(report)


def configure(desk: Desk, rest: str) -> None:
    """Show the settings and where each comes from."""
    words, _ = _words(desk, rest, {}, most=2)
    if words:
        raise OptionError(f"set it with: %config VlmMagics.{words[0]} = {words[1] if words[1:] else 'VALUE'}")
    report = Report()
    section = report.section("Settings", "name", "value", "from")
    for name, (value, origin) in config.origins().items():
        section.add(name, value, origin)
    section.add("file", config.config_file(), "")
    display(report)


def show_code(desk: Desk, rest: str) -> None:
    """Print the Python that repeats the last answer."""
    _words(desk, rest, {}, most=0)
    print(reproduce.code(desk.last))  # noqa: T201


def show_doctor(desk: Desk, rest: str) -> None:
    """Show versions, device, memory and what is missing."""
    _words(desk, rest, {}, most=0)
    display(doctor())


def explore(desk: Desk, rest: str) -> None:
    """Open the widget."""
    import vlm_nb

    _words(desk, rest, {}, most=0)
    if not hasattr(vlm_nb, "explore"):
        raise CapabilityError("this version of vlm_nb has no explorer widget.")
    display(vlm_nb.explore())


COMMANDS: dict[str, Callable[[Desk, str], None]] = {
    "load": load,
    "use": use,
    "status": status,
    "unload": unload,
    "models": models,
    "config": configure,
    "reproduce": show_code,
    "doctor": show_doctor,
    "explore": explore,
}
