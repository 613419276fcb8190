"""From what a caller gives for many rows to jobs, one at a time: nothing is held that is not needed yet."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import sources
from ..asking import Job, Task, checked_text
from ..errors import PromptError, SourceError, SourceNotFound, VLMError

_TEMPLATES = 256
_HINTS = 20
_GLOB = frozenset("*?[")


class JobMaker:
    """Makes one row's job. What rows with the same question share is checked and built once.

    ``job`` is ``VLM.job``; ``task`` None means: "ask" with a question, "detect" without.
    """

    def __init__(self, job: Callable[..., Job], task: Task | None = None, **settings: Any) -> None:
        def template(prompt: str | None) -> Job:
            kind: Task = task or ("ask" if prompt is not None else "detect")
            return dataclasses.replace(job((), prompt, kind, **settings), interactive=False)

        self.template = functools.lru_cache(_TEMPLATES)(template)
        """The job of a prompt without its image; raises OptionError and PromptError."""

    def __call__(self, item: sources.Source | VLMError, prompt: str | None) -> Job | VLMError:
        """Return the job of one image, or the row's error."""
        if isinstance(item, VLMError):
            return item
        try:
            return dataclasses.replace(self.template(checked_text(prompt)), sources=(item,))
        except PromptError as error:
            error.source = item.label
            return error


class Expander:
    """``sources.expand`` for many values. The search for similar names goes with the first few missing files.

    It lists a whole folder each time, which a table of a million wrong paths cannot afford.
    """

    def __init__(self, *, recursive: bool = False) -> None:
        self._recursive = recursive
        self._hints = _HINTS

    def __call__(self, value: Any) -> list[sources.Source | SourceError]:
        """Return what ``value`` stands for: one source, several for a folder, or an error."""
        try:
            return self._expanded(value)
        except Exception as error:  # noqa: BLE001 - a value that cannot even be looked at is its row's error
            return [SourceError(f"no image in {type(value).__name__}: {type(error).__name__}: {error}")]

    def _expanded(self, value: Any) -> list[sources.Source | SourceError]:
        path = _plain_path(value)
        if path is None:
            return sources.expand(value, recursive=self._recursive)
        if os.path.isfile(path):
            return [sources.Source(path, "path", Path(path))]
        if self._hints > 0 or os.path.exists(path):
            self._hints -= 1
            return sources.expand(value, recursive=self._recursive)
        return [SourceNotFound(f"no such file: {path[:200]}", source=path[:200])]


def _plain_path(value: Any) -> str | None:
    """A text that can only be a path, ``~`` expanded; None for anything else."""
    if not isinstance(value, str) or len(value) > 1000 or "\0" in value:
        return None
    if "://" in value or value.startswith("data:") or not _GLOB.isdisjoint(value) or not value.strip():
        return None
    return os.path.expanduser(value.strip())


def items_of(source: Any, *, recursive: bool = False) -> tuple[Iterable[Any], int | None]:
    """Return the images (or errors) that ``source`` expands to, lazily where it is a list, and their number.

    The number is a lower bound for a list, whose folders may hold several, and None for an iterator.
    """
    if isinstance(source, list | tuple):
        return _each(source, recursive), len(source)
    if isinstance(source, Iterator) and not hasattr(source, "read"):
        return _each(source, recursive), None
    items = sources.expand(source, recursive=recursive)
    return items, len(items)


def _each(parts: Iterable[Any], recursive: bool) -> Iterable[Any]:
    return itertools.chain.from_iterable(map(Expander(recursive=recursive), parts))


def jobs_of(
    source: Any, prompts: str | Sequence[str | None] | None, make: JobMaker, *, recursive: bool = False
) -> tuple[Iterable[Job | VLMError], int | None]:
    """Return the jobs of a list, folder or glob, and their number as ``items_of`` has it.

    One prompt serves all; several must be as many as the inputs expand to. Raises PromptError otherwise.
    """
    items, count = items_of(source, recursive=recursive)
    if prompts is None or isinstance(prompts, str):
        make.template(prompts)
        return map(make, items, itertools.repeat(prompts)), count
    if not hasattr(prompts, "__len__") or isinstance(prompts, bytes | Mapping):
        checked_text(prompts)
    listed = list(items)
    if len(prompts) != len(listed):
        raise PromptError(
            f"{len(prompts)} prompts were given for {len(listed)} inputs (folders and globs count what they "
            "expand to); give one prompt, or one for each input."
        )
    return map(make, listed, prompts), len(listed)
