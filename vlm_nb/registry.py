"""Loaded models and the current one. The state lives here, so that reloading the extension keeps it."""

from __future__ import annotations

import difflib
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import config
from .engines import ENGINES
from .engines.spec import LoadSpec
from .errors import DownloadError, ModelNotFound, NoModelLoaded, OptionError, nearest, unknown_option
from .machine import cached_models
from .request import settings_of

if TYPE_CHECKING:
    from .engines.base import Progress
    from .model import VLM

CACHES = 2 * 2**30
"""Bytes that a loaded model's caches may hold."""

_lock = threading.Lock()
_load_lock = threading.Lock()
_models: dict[tuple[Any, ...], VLM] = {}
_current: VLM | None = None


def load(
    model: str | None = None,
    *,
    keep: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    cancelled: threading.Event | None = None,
    **keywords: Any,
) -> VLM:
    """Load a vision-language model and make it the current one.

    ``model`` is a hub id, a local folder, "demo", or a server's name for a model (``engine="openai"``); None
    takes the ``model`` setting. Loading the same thing again returns the loaded model; loading another frees
    the loaded ones first unless ``keep=True``, but not before its own files are there and checked: where
    those are wrong, the earlier model goes on. Keywords: ``quantization`` ("4bit", "8bit"), ``load_in_4bit``/
    ``load_in_8bit``/``quantization_config``, ``device_map``, ``dtype``, ``attn_implementation``,
    ``low_cpu_mem_usage``, ``compile``, ``max_pixels``, ``max_batch_size``, ``revision``, ``adapter``,
    ``chat_template``, ``processor``, ``token``, ``local_files_only``, ``engine`` and the engine's own; see
    the documentation.
    ``on_progress`` is called with what happens, ``cancelled`` may be set to stop.

    Raises OptionError for an unknown keyword (naming the nearest) and a LoadError that says what to do next.
    """
    spec = make_spec(model, **keywords)
    with _load_lock:
        known = find(spec)
        if known is None:
            known = _open(spec, on_progress, cancelled, keep=keep)
            with _lock:
                _models[spec.identity()] = known
        return use(known)


def _open(
    spec: LoadSpec,
    on_progress: Callable[[Progress], None] | None,
    cancelled: threading.Event | None,
    *,
    keep: bool,
) -> VLM:
    from .opening import open_model

    short = _is_short(spec)
    if short and difflib.get_close_matches(spec.model.lower(), ["demo"], cutoff=0.8):
        raise ModelNotFound(f"no model {spec.model!r}; did you mean demo?")
    try:
        return open_model(
            spec,
            on_progress=on_progress,
            cancelled=cancelled,
            room={} if keep else _to_be_freed(),
            make_room=None if keep else unload_all,
        )
    except (ModelNotFound, DownloadError) as error:
        if short:
            error.args = (f"{_full_names(spec.model)} {error.message}",)
        raise


def _is_short(spec: LoadSpec) -> bool:
    """Whether the model is to come from the hub by a name without an organisation, which few old ones are."""
    elsewhere = spec.engine in ("openai", "scripted") or spec.model == "demo"
    return not elsewhere and "/" not in spec.model and not os.path.exists(os.path.expanduser(spec.model))


def _full_names(name: str) -> str:
    close = nearest(name, ["demo", *(model.name for model in cached_models())], count=1)
    hint = f"did you mean {close[0]}?" if close else "names on the hub are organisation/name."
    return f"{name!r} names no organisation; {hint} Otherwise:"


def _to_be_freed() -> dict[str, int]:
    """At most so many bytes, by device, come back when the loaded models are freed: weights and caches."""
    found: dict[str, int] = {}
    for model in loaded():
        info = model.info
        found[info.device] = found.get(info.device, 0) + int(1.1 * (info.memory or 0)) + CACHES
    return found


def make_spec(model: str | None = None, **keywords: Any) -> LoadSpec:
    """Check the keywords of ``load`` and fill in the settings. Raises OptionError."""
    settings = config.settings()
    for name in ("engine", "quantization", "max_pixels"):
        if keywords.get(name) is None and getattr(settings, name) is not None:
            quantised = (
                keywords.get("load_in_4bit")
                or keywords.get("load_in_8bit")
                or keywords.get("quantization_config")
            )
            if name != "quantization" or not quantised:
                keywords[name] = getattr(settings, name)
    if settings.max_new_tokens is not None:
        own = {"max_new_tokens": settings.max_new_tokens}
        keywords["generation_config"] = own | settings_of(keywords.get("generation_config"))
    if model is not None and (not isinstance(model, str | os.PathLike) or not str(model).strip()):
        raise OptionError(f'{model!r} is no name of a model; give a hub id, a local folder, or "demo".')
    spec = LoadSpec.from_keywords(str(settings.model if model is None else model), **keywords)
    if spec.engine not in ENGINES:  # before anything loaded is given up for it
        raise unknown_option("engine", spec.engine, ENGINES)
    if spec.family is not None:
        from .families import (
            known_family,
        )  # families need PIL and the parsers: loading the extension does not

        known_family(spec.family)
    return spec


def find(spec: LoadSpec) -> VLM | None:
    """Return the loaded model of ``spec``, if it is still loaded."""
    with _lock:
        model = _models.get(spec.identity())
    return model if model is not None and not model.engine.closed else None


def loaded() -> list[VLM]:
    """The loaded models, oldest first."""
    with _lock:
        return [model for model in _models.values() if not model.engine.closed]


def use(model: VLM | str) -> VLM:
    """Make a loaded model (itself, or its name) the current one. Raises NoModelLoaded."""
    global _current
    chosen = by_name(model) if isinstance(model, str) else _checked(model)
    with _lock:
        _current = chosen
    return chosen


def by_name(name: str, *, wanted: bool = True) -> VLM:
    """Return the loaded model called ``name`` (the last loaded, if several). Raises NoModelLoaded.

    With ``wanted`` its message says how to load it.
    """
    for model in reversed(loaded()):
        if model.name == name or model.name.rsplit("/", 1)[-1] == name:
            return model
    names = [model.name for model in loaded()]
    close = nearest(name, names)
    hint = f"did you mean {close[0]!r}?" if close else f"loaded: {', '.join(names) or 'none'}."
    how = f" Load it with: %vlm load {name}" if wanted else ""
    raise NoModelLoaded(f"no model called {name!r} is loaded; {hint}{how}")


def other_than(model: VLM, name: str) -> VLM:
    """Return the loaded model called ``name`` that is not ``model``. Raises NoModelLoaded, OptionError."""
    others = [one for one in reversed(loaded()) if one is not model]
    found = next((one for one in others if name in (one.name, one.name.rsplit("/", 1)[-1])), None)
    if found is None and by_name(name) is model:
        raise OptionError(f"{name} is the model that answers already; load another with --keep.")
    return found or by_name(name)


def current(model: VLM | str | None = None, *, demo: bool = False) -> VLM:
    """Return ``model`` if named, else the current one.

    With ``demo=True`` (single calls) the demo model is loaded when there is none. Raises NoModelLoaded.
    """
    if model is not None:
        return by_name(model) if isinstance(model, str) else _checked(model)
    with _lock:
        here = _current
    if here is not None and not here.engine.closed:
        return here
    if remaining := loaded():
        return use(remaining[-1])
    if demo:
        return load(config.settings().model)
    raise NoModelLoaded(
        "no model is loaded. Load one first:  %vlm load Qwen/Qwen2.5-VL-3B-Instruct --quantization 4bit"
        '  (or "%vlm load demo" for the small demo model, which knows drawn scenes only).'
    )


def _checked(model: VLM) -> VLM:
    if not hasattr(model, "engine"):
        raise OptionError(f"{model!r} is no loaded model; give what vlm_nb.load returned, or its name.")
    return model


def unload(model: VLM | str | None = None) -> VLM:
    """Unload ``model`` (or the current one), free its memory and return the dead handle.

    Raises NoModelLoaded, and OptionError for something that is no model.
    """
    if model is None and not loaded():
        raise NoModelLoaded("no model is loaded. There is nothing to unload.")
    target = by_name(model, wanted=False) if isinstance(model, str) else current(model)
    with _lock:
        for key in [k for k, v in _models.items() if v is target]:
            del _models[key]
    _forget(target)
    target.unload()
    return target


def _forget(model: VLM) -> None:
    global _current
    with _lock:
        if _current is model:
            _current = None


def unload_all() -> None:
    """Unload every loaded model."""
    for model in loaded():
        unload(model)
