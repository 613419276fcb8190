"""Many questions: prepared ahead of the engine, answered in any order, handed back in the caller's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..asking import Job
from ..errors import Cancelled, ModelUnloaded, OptionError, VLMError
from ..results import Outcome
from .book import Book
from .counts import Counts
from .identity import Answerer
from .jsonl import Conversations, MakeJob, check_apart
from .lookup import known_rows
from .options import RUN_KEYS, RunOptions, ledger_path, split_options
from .output import Line, plain_line
from .parquet import Columns, run_parquet
from .pipeline import Pipeline
from .progress import Progress
from .rows import JobMaker, items_of, jobs_of
from .stopping import end_cell, in_ipython, interrupted

__all__ = [
    "RUN_KEYS",
    "Answerer",
    "Columns",
    "Counts",
    "JobMaker",
    "Run",
    "RunOptions",
    "cancelled_row",
    "end_cell",
    "in_ipython",
    "interrupted",
    "items_of",
    "jobs_of",
    "known_rows",
    "ledger_path",
    "run",
    "run_jsonl",
    "run_parquet",
    "split_options",
    "stream",
    "with_cancelled",
]


class Run:
    """One pass over ``jobs``; iterate to get ``(position, outcome)`` as rows finish, in any order.

    Leaving early cancels what is under way. ``halt`` returns what has finished meanwhile; the same run again
    goes on from there: finished rows come from the ledger.
    """

    def __init__(
        self,
        answerer: Answerer,
        jobs: Iterable[Job | VLMError],
        options: RunOptions,
        line: Line = plain_line,
    ) -> None:
        if answerer.engine.closed:
            raise ModelUnloaded("this model was unloaded; load it again with %vlm load or vlm_nb.load(...).")
        self._book = Book(answerer, options, line)
        counts = Counts(rows=options.nulls, nulls=options.nulls)
        self._pipeline = Pipeline(answerer, jobs, self._book, counts)
        self._progress = Progress(options.total) if options.progress else None
        self._closed = False

    @property
    def counts(self) -> Counts:
        """How far it is."""
        return self._pipeline.counts

    @property
    def pulled(self) -> int:
        """How many jobs were taken from the iterable."""
        return self._pipeline.pulled

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[int, Outcome]]:
        for position, outcome in self._pipeline:
            if self._progress:
                self._progress.show(self.counts)
            yield position, outcome
        self.close()

    def halt(self) -> list[tuple[int, Outcome]]:
        """Cancel, wait at most a second, and return the rows that finished and were not handed out yet."""
        return self._pipeline.halt()

    def close(self) -> None:
        """Cancel what is under way, end the threads, note the run in the ledger. Twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._pipeline.close()
        counts = self.counts
        self._book.close(rows=counts.rows - counts.nulls, hits=counts.hits, failed=counts.failed)
        if self._progress:
            self._progress.close(counts)
        self._book.tick()


def stream(
    answerer: Answerer, jobs: Iterable[Job | VLMError], **options: Any
) -> Iterator[tuple[int, Outcome]]:
    """Answer ``jobs``, pulled lazily; yield ``(position, outcome)`` as they finish.

    An error among the jobs is an outcome in its place. Options: see ``RunOptions``.
    """
    with Run(answerer, jobs, RunOptions.checked(options)) as rows:
        yield from rows


def run(
    answerer: Answerer, jobs: Iterable[Job | VLMError], *, show_progress: bool | None = None, **options: Any
) -> list[Outcome]:
    """Answer ``jobs``; the list has one ``Outcome`` a job, in order. One bad row never costs another.

    Raises MissingDependency where a package is missing that all rows need.
    Ctrl+C in IPython warns and returns what is finished, the rest as ``Cancelled`` errors; elsewhere it
    cancels and raises KeyboardInterrupt. Options: see ``RunOptions``.
    """
    remaining = iter(jobs)
    found: dict[int, Outcome] = {}
    checked = RunOptions.checked({"show_progress": show_progress, **options})
    with Run(answerer, remaining, checked) as rows:
        try:
            for position, outcome in rows:
                found[position] = outcome
        except KeyboardInterrupt:
            if not in_ipython():
                raise
            found.update(rows.halt())
            total = max(rows.pulled + sum(1 for _ in remaining), checked.total or 0)
            kept = checked.ledger_path is not None
            interrupted(_answered(found), total, kept=kept, stacklevel=4)
            return with_cancelled(found, total)
    return [found[position] for position in range(len(found))]


def run_jsonl(answerer: Answerer, path: str | os.PathLike[str], make: MakeJob, **options: Any) -> Counts:
    """Answer the conversations of a JSONL file into ``output=``; the caller is told how many rows went how.

    Rows that the output or the ledger holds are not computed again. After an interrupt, call again.
    """
    checked = RunOptions.checked(options)
    if not checked.output:
        raise OptionError('run_jsonl needs output="answers.jsonl".')
    if not isinstance(path, str | os.PathLike):
        raise OptionError(f"{path!r}: expected the name of a JSONL file.")
    source = Path(path).expanduser()
    check_apart(source, Path(checked.output).expanduser())
    conversations = Conversations(source, make)
    with Run(answerer, conversations, checked, conversations.line) as rows:
        for _ in rows:
            pass
    return rows.counts


def with_cancelled(found: Mapping[int, Outcome], total: int) -> list[Outcome]:
    """The outcomes in order, with a Cancelled error for each row that has none."""
    done = _answered(found)
    return [found.get(i) or Outcome(None, cancelled_row(i, done, total)) for i in range(total)]


def _answered(found: Mapping[int, Outcome]) -> int:
    return sum(outcome.error is None for outcome in found.values())


def cancelled_row(position: int, done: int, total: int) -> Cancelled:
    """The error of a row that an interrupt left unanswered."""
    return Cancelled(
        f"interrupted before this row; {done} of {total} are done. Run the same call again to go on:"
        " finished rows are taken from the ledger.",
        index=position,
    )
