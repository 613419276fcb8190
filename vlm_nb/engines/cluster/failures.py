"""Ray's errors: which of them say that a process is gone, and what they say in our words."""

from __future__ import annotations

import re
from typing import Any

from ...errors import GenerationError, VLMError
from ..base import forget_frames


def deaths(ray: Any) -> tuple[type[Exception], ...]:
    """Ray's errors that say that a process or a node is gone."""
    named = ray.exceptions
    gone = (named.RayActorError, named.WorkerCrashedError, named.NodeDiedError, named.ObjectLostError)
    return (*gone, named.OutOfMemoryError)  # Ray ends a process before the machine runs out of memory


def own_error(error: BaseException) -> VLMError:
    """Ray's error as ours, without its text of remote frames."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, VLMError):
        return cause
    return error if isinstance(error, VLMError) else GenerationError(f"Ray: {said(error)}")


def said(error: BaseException) -> str:
    """What Ray's error says, in one line: its last, below all frames of other processes, without colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(forget_frames(error)))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:400] if lines else type(error).__name__
