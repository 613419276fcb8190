"""Settings and where they come from: keyword > ``%config VlmMagics.*`` > ``VLM_NB_*`` > TOML file > default.

The TOML file is ``config.toml`` in the user's config folder (``config_file()`` tells which); its keys are the
names below. ``VLM_NB_MODEL=demo`` sets ``model``, and so on.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import OptionError, unknown_option


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values in force.

    ``model``: what ``%vlm load`` and single calls load when nothing is named ("demo"). ``engine``,
    ``quantization``, ``max_pixels``, ``max_new_tokens``: defaults of loading and generating (None: the
    library's own). ``show_progress``: bars for lists and tables. ``ledger``: a path, "off", or None for the
    user's cache folder. ``ledger_max_gb``: its size cap. ``stream``: show answers as they grow.
    ``url_timeout`` (seconds) and ``url_max_mb`` bound downloads of images.
    """

    model: str = "demo"
    engine: str = "transformers"
    quantization: str | None = None
    max_pixels: int | None = None
    max_new_tokens: int | None = None
    show_progress: bool = True
    ledger: str | None = None
    ledger_max_gb: float = 2.0
    stream: bool = True
    url_timeout: float = 20.0
    url_max_mb: float = 50.0

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all settings."""
        return tuple(f.name for f in dataclasses.fields(cls))


_TYPES: dict[str, type] = {
    "max_pixels": int,
    "max_new_tokens": int,
    "show_progress": bool,
    "stream": bool,
    "ledger_max_gb": float,
    "url_timeout": float,
    "url_max_mb": float,
}
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_overrides: dict[str, Any] = {}


def settings() -> Settings:
    """Return the settings in force now. Raises OptionError naming the file or variable that is wrong."""
    values = {**_from_file(config_file()), **_from_environment(), **_overrides}
    return Settings(**values)


def override(name: str, value: Any) -> None:
    """Set ``name`` for this session (what ``%config VlmMagics.name = value`` does); None takes it back."""
    _known(name, "setting")
    if value is None:
        _overrides.pop(name, None)
    else:
        _overrides[name] = _convert(name, value, "%config")


def overrides() -> dict[str, Any]:
    """What ``%config`` set in this session."""
    return dict(_overrides)


def config_file() -> Path:
    """The TOML file's path, whether or not it exists."""
    import platformdirs

    return Path(platformdirs.user_config_dir("vlm_nb")) / "config.toml"


def cache_folder() -> Path:
    """The user's cache folder of vlm_nb (``VLM_NB_CACHE_DIR`` moves it), whether or not it exists."""
    import platformdirs

    return Path(os.environ.get("VLM_NB_CACHE_DIR") or platformdirs.user_cache_dir("vlm_nb"))


def _from_environment() -> dict[str, Any]:
    names = {f"VLM_NB_{name.upper()}": name for name in Settings.names()}
    return {name: _convert(name, os.environ[var], var) for var, name in names.items() if os.environ.get(var)}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise OptionError(f"{path} cannot be read: {error}. Correct the file, or remove it.") from None
    return {
        name: _convert(_known(name, f"setting in {path}"), value, str(path)) for name, value in values.items()
    }


def _known(name: str, kind: str) -> str:
    if name not in Settings.names():
        raise unknown_option(kind, name, Settings.names())
    return name


def _convert(name: str, value: Any, where: str) -> Any:
    kind = _TYPES.get(name, str)
    if name == "ledger" and value is False:  # as ledger=False
        return "off"
    try:
        return _READERS[kind](value)
    except (TypeError, ValueError, OverflowError):
        raise OptionError(f"{where}: {name}={value!r} is not {_WANTED[kind]}.") from None


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in _YES + _NO:
        raise ValueError(value)
    return word in _YES


def _whole(value: Any) -> int:
    found = int(value)
    if isinstance(value, bool) or found < 1 or (not isinstance(value, str) and found != value):
        raise ValueError(value)
    return found


def _amount(value: Any) -> float:
    found = float(value)
    if isinstance(value, bool) or not 0 < found < float("inf"):
        raise ValueError(value)
    return found


def _text(value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)) or not str(value).strip():
        raise ValueError(value)
    return str(value)


_READERS: dict[type, Callable[[Any], Any]] = {bool: _switch, int: _whole, float: _amount, str: _text}
_WANTED = {
    bool: "yes or no",
    int: "a whole number above 0",
    float: "a number above 0",
    str: "a text",
}


def origins() -> dict[str, tuple[Any, str]]:
    """Every setting in force as (value, where it comes from)."""
    layers = {
        "%config": _overrides,
        "environment": _from_environment(),
        str(config_file()): _from_file(config_file()),
    }
    now = settings()
    found = {name: [place for place, values in layers.items() if name in values] for name in Settings.names()}
    return {name: (getattr(now, name), (places or ["default"])[0]) for name, places in found.items()}
