"""Many questions: prepared ahead of the engine, answered in any order, handed back in the caller's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from ..asking import Asker, Job, Prepared
from ..engines.base import Engine, generate
from ..errors import Cancelled, SourceError, VLMError
from ..request import Request
from ..results import Outcome


class Answerer(Protocol):
    """What the runner needs of a model: the two steps around an engine, and the engine."""

    @property
    def asker(self) -> Asker:
        """Prepares jobs and reads completions."""

    @property
    def engine(self) -> Engine:
        """Answers requests."""


def run(
    answerer: Answerer, jobs: Iterable[Job | VLMError], *, show_progress: bool | None = None, **options: Any
) -> list[Outcome]:
    """Answer ``jobs``; the list has one ``Outcome`` a job, in order. One bad row never costs another."""
    found = dict(stream(answerer, jobs, show_progress=show_progress, **options))
    return [found[index] for index in sorted(found)]


def stream(
    answerer: Answerer, jobs: Iterable[Job | VLMError], *, show_progress: bool | None = None, **options: Any
) -> Iterator[tuple[int, Outcome]]:
    """Answer ``jobs``, pulled lazily; yield ``(position, outcome)`` as they finish."""
    failed: list[tuple[int, Outcome]] = []
    waiting: dict[int, tuple[int, Job, Prepared]] = {}

    def requests() -> Iterator[Request]:
        count = 0
        for position, job in enumerate(jobs):
            try:
                if isinstance(job, VLMError):
                    raise job
                prepared = answerer.asker.prepare(job)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this row's
                failed.append((position, Outcome(None, _own(error, position, job))))
                continue
            waiting[count] = (position, job, prepared)
            count += 1
            yield prepared.request

    for number, completion in generate(answerer.engine, requests()):
        position, job, prepared = waiting.pop(number)
        try:
            if completion.usage.finish_reason == "cancelled":
                raise Cancelled("stopped before it was answered.")
            yield position, Outcome(answerer.asker.predict(job, prepared, completion), None)
        except VLMError as error:
            yield position, Outcome(None, _own(error, position, job))
    yield from failed


def _own(error: Exception, position: int, job: Job | VLMError) -> VLMError:
    """``error`` as this row's, without the traceback whose frames would keep images alive."""
    ours = error if isinstance(error, VLMError) else SourceError(f"{type(error).__name__}: {error}")
    ours.source = ours.source or getattr(job, "label", None)
    ours.index = position
    ours.__traceback__ = ours.__cause__ = ours.__context__ = None
    return ours
