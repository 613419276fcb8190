"""What ``df.vlm`` and ``series.vlm`` say of themselves, and of names that they do not have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from ..errors import OptionError, nearest, unknown_option

_CALLS = {
    **dict.fromkeys(("detect", "locate", "find", "segment", "point", "objects"), "ground"),
    **dict.fromkeys(("describe", "captions"), "caption"),
    **dict.fromkeys(("vqa", "query", "question", "prompt", "chat", "generate", "run"), "ask"),
    **dict.fromkeys(("gallery", "plot", "display", "head"), "show"),
    **dict.fromkeys(("retry", "resume"), "retry_failed"),
}
_KEYWORDS = {
    **dict.fromkeys(("progress", "progress_bar", "verbose", "tqdm"), "show_progress"),
    **dict.fromkeys(("column", "col", "image_column", "image_col", "images", "source", "on"), "image"),
    **dict.fromkeys(("output_column", "new_column", "column_name", "prefix", "into"), "name"),
}
_BATCHES = ("batch_size", "batch", "max_batch_size", "num_workers", "workers")


class Guided:
    """An accessor that lists its calls, and names the nearest for one that it lacks."""

    def __repr__(self) -> str:
        return f"{self._about()}\ncalls: {', '.join(_calls(type(self)))}"

    def _about(self) -> str:
        raise NotImplementedError

    def __getattr__(self, name: str) -> NoReturn:
        calls = _calls(type(self))
        meant = [_CALLS[name]] if _CALLS.get(name) in calls else nearest(name, calls)
        hint = f"did you mean {', '.join(meant)}(...)?" if meant else f"there are: {', '.join(calls)}."
        raise AttributeError(f"vlm has no {name!r}; {hint}")


def _calls(cls: type) -> list[str]:
    """The public methods, in the order in which they are written."""
    return [name for name in vars(cls) if not name.startswith("_")]


def check_keywords(given: Iterable[str], own: tuple[str, ...], generation: tuple[str, ...]) -> None:
    """Raise OptionError for a keyword that a call does not have, naming the one that is meant."""
    for key in given:
        if key in own or key in generation:
            continue
        if key in _BATCHES:
            raise OptionError(
                f"unknown keyword {key!r}; the engine chooses how many rows go together:"
                " vlm_nb.load(..., max_batch_size=...) bounds them."
            )
        if key in _KEYWORDS:
            raise OptionError(f"unknown keyword {key!r}; did you mean {_KEYWORDS[key]}?")
        raise unknown_option("keyword", key, (*own, *generation))
