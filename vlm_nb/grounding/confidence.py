"""How sure the model was of each box: from the probabilities of the tokens that spell its coordinates."""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from .base import Span

_COORDINATE = re.compile(r"(?:(?<=<loc)|(?<=<loc_)|(?<=patch_index_)|(?<![\w.]))[-+]?[0-9.]*[0-9]")
_LOOK = 16
"""Characters that a token's text may be off (servers spell white space and cut characters otherwise)."""


class Tokens:
    """The tokens of an answer laid over its text. ``texts`` and ``logprobs`` (natural logs) are one a token.

    What the text has and no token is known for (a server's reasoning in front, say) stays uncovered.
    """

    def __init__(self, text: str, texts: Sequence[str], logprobs: Sequence[float]) -> None:
        self._text = text
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._logprobs: list[float] = []
        joined = "".join(texts)
        at = len(text) - len(joined) if text.endswith(joined) else 0
        for token, logprob in zip(texts, logprobs, strict=False):
            at = self._lay(token, logprob, at)

    def _lay(self, token: str, logprob: float, at: int) -> int:
        """Put a token at ``at`` or a little behind it; return where the next one goes."""
        start = self._text.find(token, at, at + len(token) + _LOOK) if token else -1
        if start < 0:
            return at
        self._starts.append(start)
        self._ends.append(start + len(token))
        self._logprobs.append(logprob)
        return start + len(token)

    def confidence(self, span: Span) -> float | None:
        """The geometric mean of the probabilities of the tokens that hold the coordinates in ``span``.

        0..1; None where a digit belongs to no known token.
        """
        chosen: set[int] = set()
        for match in _COORDINATE.finditer(self._text, *span):
            over = range(bisect_right(self._ends, match.start()), bisect_left(self._starts, match.end()))
            if sum(self._overlap(n, match.span()) for n in over) < match.end() - match.start():
                return None
            chosen.update(over)
        if not chosen:
            return None
        return math.exp(min(0.0, sum(self._logprobs[n] for n in chosen) / len(chosen)))

    def _overlap(self, number: int, span: Span) -> int:
        return min(self._ends[number], span[1]) - max(self._starts[number], span[0])


def box_confidences(
    text: str, spans: Sequence[Sequence[Span]], texts: Sequence[str], logprobs: Sequence[float], *, cut: bool
) -> list[float | None]:
    """Return the confidence of each box whose numbers stand in ``text`` at its ``spans`` (see ``Grounding``).

    A box that an answer repeats has that of its first place; in an answer that was ``cut`` it has none:
    a loop is sure of whatever it repeats.
    """
    tokens = Tokens(text, texts, logprobs)
    looped = [cut and len(places) > 1 for places in spans]
    return [
        tokens.confidence(places[0]) if places and not loop else None
        for places, loop in zip(spans, looped, strict=True)
    ]
