"""``df.vlm`` and ``series.vlm``: registered now if pandas is loaded, else when it is."""

from __future__ import annotations

import importlib.util
import logging
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAME = "vlm"
log = logging.getLogger("vlm_nb")


def register() -> None:
    """Give DataFrame and Series their ``vlm``: now, or once pandas is imported. Twice is fine."""
    if _is_loaded():
        _attach()
    elif not any(isinstance(finder, _WhenPandasLoads) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenPandasLoads())


def unregister() -> None:
    """Take ``vlm`` away again. Twice is fine."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _WhenPandasLoads)]
    if not _is_loaded():
        return
    import pandas as pd

    classes: tuple[Any, ...] = (pd.DataFrame, pd.Series)
    for cls in classes:
        if _is_ours(cls):
            delattr(cls, NAME)
            cls._accessors.discard(NAME)


def _is_loaded() -> bool:
    """Whether pandas is imported, and not only under way."""
    return hasattr(sys.modules.get("pandas"), "Series")


def _is_ours(cls: type) -> bool:
    return str(getattr(getattr(cls, NAME, None), "__module__", "")).startswith("vlm_nb.")


def _attach() -> None:
    import pandas as pd

    from .frame import FrameAccessor
    from .series import SeriesAccessor

    for cls, accessor, add in (
        (pd.DataFrame, FrameAccessor, pd.api.extensions.register_dataframe_accessor),
        (pd.Series, SeriesAccessor, pd.api.extensions.register_series_accessor),
    ):
        if not _is_ours(cls):
            add(NAME)(accessor)


class _WhenPandasLoads:
    """An import hook that lets pandas load as ever, then attaches the accessors and goes away.

    Looking for pandas without importing it (``importlib.util.find_spec``) must not use the hook up.
    """

    def __init__(self) -> None:
        self._looking_in: int | None = None  # the thread, so that imports in others are still seen

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Step aside, and have pandas' own loader call back when it is done."""
        if name != "pandas" or self._looking_in == threading.get_ident():
            return None
        self._looking_in = threading.get_ident()
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking_in = None
        loader: Any = spec.loader if spec else None
        if loader is None:
            return spec
        load = loader.exec_module

        def load_and_attach(module: ModuleType) -> None:
            del loader.exec_module  # the class's own again
            sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
            load(module)
            try:
                _attach()
            except Exception:  # pandas itself is fine, and whoever imports it must have it
                log.warning("df.vlm could not be added", exc_info=True)

        loader.exec_module = load_and_attach
        return spec
