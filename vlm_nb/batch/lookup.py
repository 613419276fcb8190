"""Which rows a run would not have to compute, without running it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from ..asking import Job
from ..errors import VLMError
from .book import Book
from .identity import Answerer
from .options import RunOptions


def known_rows(answerer: Answerer, jobs: Iterable[Job | VLMError], options: RunOptions) -> list[bool]:
    """Whether each job's answer is stored already. URLs are not downloaded for this: they count as not."""
    with contextlib.closing(Book(answerer, options, noted=False)) as book:
        return [_is_known(book, job) for job in jobs]


def _is_known(book: Book, job: Job | VLMError) -> bool:
    if isinstance(job, VLMError) or any(source.kind == "url" for source in job.sources):
        return False
    try:
        contents = book.known(job) or book.load(job)[1]
        return book.find(job, book.key(job, contents)) is not None
    except VLMError:
        return False
