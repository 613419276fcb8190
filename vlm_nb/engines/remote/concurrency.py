"""How many requests to have open at a server: quick back-off, patient growth, judged by windows.

Pure: time comes in as seconds of any monotonic clock, so that tests need no waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import OptionError

PATIENCE = 2
"""Consecutive bad windows before the limit is halved, and good ones before it grows again after that."""


@dataclass(slots=True)
class AdaptiveConcurrency:
    """The number of requests that may be open, 1..``maximum``; starts at half of it.

    Answers are judged in windows of ``adjust_every`` seconds. A window is bad when more than
    ``error_threshold`` (0..1) of its answers were overload: 429, 5xx, time-outs, broken connections. A good
    window in which the limit was reached raises it by a quarter; two bad ones in a row halve it, and after
    that two good ones in a row are needed before it grows again. ``pause`` honours ``Retry-After``.
    """

    maximum: int = 50
    error_threshold: float = 0.01
    adjust_every: float = 5.0
    limit: int = field(init=False)
    _started: float | None = field(init=False, default=None)
    _answers: int = field(init=False, default=0)
    _overloads: int = field(init=False, default=0)
    _reached: bool = field(init=False, default=False)
    _good: int = field(init=False, default=0)
    _bad: int = field(init=False, default=0)
    _needed: int = field(init=False, default=1)
    _paused_until: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        _check("max_concurrency", self.maximum, isinstance(self.maximum, int) and self.maximum >= 1)
        _check("error_threshold", self.error_threshold, 0 <= self.error_threshold <= 1)
        _check("adjust_every", self.adjust_every, self.adjust_every > 0)
        self.limit = max(1, self.maximum // 2)

    def allowed(self, now: float) -> int:
        """How many requests may be open at ``now``: none during a pause."""
        return 0 if now < self._paused_until else self.limit

    def resumes_in(self, now: float) -> float:
        """Seconds until a pause ends (0 outside one)."""
        return max(0.0, self._paused_until - now)

    def pause(self, now: float, seconds: float) -> None:
        """Open nothing new for ``seconds``, because the server said so."""
        self._paused_until = max(self._paused_until, now + seconds)

    def record(self, now: float, *, overloaded: bool, open_requests: int) -> None:
        """Count one answer, with the number of requests that were open beside it, itself included."""
        self._started = now if self._started is None else self._started
        self._answers += 1
        self._overloads += overloaded
        self._reached = self._reached or open_requests >= self.limit
        if now - self._started >= self.adjust_every:
            self._judge()

    def _judge(self) -> None:
        bad = self._overloads > self.error_threshold * self._answers
        self._good, self._bad = (0, self._bad + 1) if bad else (self._good + 1, 0)
        if self._bad >= PATIENCE:
            self.limit, self._bad, self._needed = max(1, self.limit // 2), 0, PATIENCE
        elif self._reached and self._good >= self._needed:
            self.limit, self._needed = min(self.maximum, self.limit + max(1, self.limit // 4)), 1
        self._started, self._answers, self._overloads, self._reached = None, 0, 0, False


def _check(name: str, value: object, good: bool) -> None:
    expected = {
        "max_concurrency": "a whole number from 1",
        "error_threshold": "a share from 0 to 1",
        "adjust_every": "seconds above 0",
    }
    if not good:
        raise OptionError(f"{name}={value!r}: expected {expected[name]}.")
