"""Errors that leave an engine's thread: ours, and without the frames that hold tensors and images."""

from __future__ import annotations

import threading
from typing import TypeVar

from ..errors import Cancelled, GenerationError, VLMError

E = TypeVar("E", bound=BaseException)


def forget_frames(error: E) -> E:
    """Drop the tracebacks of ``error`` and of its causes: frames keep tensors and images alive."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def as_vlm_error(error: BaseException) -> VLMError:
    """Return ``error`` as one of ours, without the tracebacks whose frames would keep tensors alive."""
    forget_frames(error)
    if isinstance(error, VLMError):
        return error
    return GenerationError(f"the engine failed: {type(error).__name__}: {error}")


def raise_if_cancelled(cancelled: threading.Event) -> None:
    """Raise Cancelled once ``cancelled`` is set."""
    if cancelled.is_set():
        raise Cancelled("loading was cancelled.")
