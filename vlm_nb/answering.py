"""What a completion says beside its text: names and confidences of boxes, sizes that agree, how it ended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from .errors import GenerationError
from .grounding import Grounding
from .grounding.confidence import box_confidences
from .request import Completion
from .results import Frame, GroundedPhrase


def named(phrases: tuple[GroundedPhrase, ...], asked: str | None) -> tuple[GroundedPhrase, ...]:
    """Give boxes that the model left without a name the phrase that was asked for."""
    return tuple(replace(p, phrase=asked) if asked and not p.phrase else p for p in phrases)


def rated(found: Grounding, completion: Completion) -> tuple[GroundedPhrase, ...]:
    """Give each box its confidence: what the model wrote about it, else what its tokens tell."""
    texts, logprobs = completion.token_texts, completion.token_logprobs
    if not texts or not logprobs or not found.spans:
        return found.grounded_phrases
    cut = completion.usage.finish_reason != "stop"
    values = box_confidences(completion.text, found.spans, texts, logprobs, cut=cut)
    return tuple(
        phrase if phrase.confidence is not None else replace(phrase, confidence=value)
        for phrase, value in zip(found.grounded_phrases, values, strict=True)
    )


def check_sizes(frames: Sequence[Frame], completion: Completion) -> None:
    """Raise GenerationError if the model saw other sizes than were prepared: boxes would be shifted."""
    expected = tuple(frame.seen for frame in frames)
    if completion.seen_sizes is not None and completion.seen_sizes != expected:
        raise GenerationError(
            f"the processor changed the image size: prepared {expected}, seen {completion.seen_sizes}; "
            "boxes would be misplaced. Please report this with the model's name."
        )


def confidence(logprobs: Sequence[float] | None) -> float | None:
    """The geometric mean of the new tokens' probabilities, 0..1; None where the engine gives none."""
    if not logprobs:
        return None
    return math.exp(sum(logprobs) / len(logprobs))


def ending(completion: Completion) -> tuple[str, ...]:
    """The note on an answer that did not end by itself; empty where it did."""
    texts = {
        "length": "cut at max_new_tokens",
        "cancelled": "stopped before the end",
        "runaway": "cut: the answer repeated itself",
    }
    text = texts.get(completion.usage.finish_reason)
    return (text,) if text else ()
