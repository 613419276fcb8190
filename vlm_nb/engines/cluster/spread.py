"""Work on many items with Ray Data: a pool of actors, each with the model loaded once.

Ray Data streams the items, keeps the actors busy, restarts dead ones and gives their items out again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from ...errors import GenerationError, VLMError
from ..base import Engine
from ..spec import LoadSpec
from .failures import said
from .joining import imported
from .options import ClusterOptions
from .replica import opened

BLOCKS = 4096
"""Ray Data gives out blocks of items; more than this many would only be bookkeeping."""


class Work(Protocol):
    """What to do with one item; it travels to the actors, so it must pickle."""

    def __call__(self, engine: Engine, item: dict[str, Any]) -> dict[str, Any]:
        """Do it with the model of ``engine`` and return plain values."""


class Station:
    """The actor: an engine with the model, and the work."""

    def __init__(self, spec: LoadSpec, work: Work) -> None:
        self._engine = opened(spec)
        self._work = work

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Do the work on one item."""
        return self._work(self._engine, item)


def spread(
    spec: LoadSpec, options: ClusterOptions, work: Work, items: Sequence[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield what ``work`` makes of each item, as it is done. Raises GenerationError where Ray Data gives up.

    Leaving the iterator early ends the actors.
    """
    imported()
    import ray.data

    _hush(ray.data)
    given = ray.data.from_items(list(items), override_num_blocks=min(len(items), BLOCKS))
    station: Any = Station  # Ray takes a class where it says a function
    done = given.map(
        station,
        fn_constructor_args=(spec, work),
        compute=ray.data.ActorPoolStrategy(size=min(options.replicas, len(items))),
        **options.resources,
    )
    rows = done.iter_rows()
    try:
        yield from rows
    except ray.exceptions.RayError as error:
        cause = getattr(getattr(error, "cause", None), "__cause__", None)
        own = cause if isinstance(cause, VLMError) else None
        raise own or GenerationError(f"Ray Data: {said(error)}") from None
    finally:
        del rows, done, given  # a data set ends its actors when it goes, and a traceback would keep it


def _hush(data: Any) -> None:
    """No bars and no plans: progress is the caller's to show."""
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
