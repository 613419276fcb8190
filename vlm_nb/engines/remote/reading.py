"""From the streamed chunks of a chat completion back to its text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...request import FinishReason

_ENDINGS: dict[str, FinishReason] = {"length": "length", "runaway": "runaway"}


@dataclass(slots=True)
class Reading:
    """The answer so far, fed with the chunks of one stream.

    ``ending`` is the server's finish reason, None while the answer is incomplete, "runaway" where we stopped
    reading. Thinking that a server sends apart is put back in front as ``<think>…</think>``, where families
    read it.
    """

    text: str = ""
    ending: str | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    logprobs: list[float] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    _thinking: bool = False

    @property
    def finish_reason(self) -> FinishReason:
        """The ending in our words."""
        return _ENDINGS.get(self.ending or "", "stop")

    def feed(self, chunk: Any) -> None:
        """Take one chunk in. Raises ValueError for something that is no chunk of a chat completion."""
        usage, choices = getattr(chunk, "usage", None), getattr(chunk, "choices", None)
        if usage is None and not isinstance(choices, list):
            raise ValueError("the server's answer is not a chat completion")
        if usage is not None:
            self.prompt_tokens = getattr(usage, "prompt_tokens", None)
            self.new_tokens = getattr(usage, "completion_tokens", None)
        for choice in (choices or [])[:1]:
            self._choice(choice)

    def _choice(self, choice: Any) -> None:
        delta = getattr(choice, "delta", None)
        thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
        said = getattr(delta, "content", None) or getattr(delta, "refusal", None)
        self.ending = getattr(choice, "finish_reason", None) or self.ending
        if isinstance(thought, str):
            self.text += thought if self._thinking else f"<think>{thought}"
            self._thinking = True
        if self._thinking and (isinstance(said, str) or self.ending):
            self.text, self._thinking = f"{self.text}</think>", False
        if isinstance(said, str):
            self.text += said
        for token in getattr(getattr(choice, "logprobs", None), "content", None) or ():
            self.logprobs.append(float(token.logprob))
            self.tokens.append(str(token.token))
