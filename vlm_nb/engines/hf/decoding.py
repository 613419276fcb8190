"""From tokens to text, piece by piece: no half characters, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

REPLACEMENT = "\ufffd"


class TextStream:
    """The text of one answer as it grows.

    ``pieces`` holds the text that each token completed: "" for the first bytes of a character, which comes
    out whole with its last one. ``stopped`` is set once a stop string was seen; it and all after it stay
    out.
    """

    def __init__(self, tokenizer: Any, *, skip_special: bool = True, stop: Sequence[str] = ()) -> None:
        self._decoder = decoder(tokenizer, skip_special)
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._from = 0  # the window that is decoded anew starts here…
        self._shown = 0  # …and up to here its text is out already
        self._held = ""
        self.pieces: list[str] = []
        self.stopped = False

    def add(self, token: int) -> str:
        """Take one token; return the text that is certain now."""
        self._ids.append(token)
        before = self._decode(self._ids[self._from : self._shown])
        now = self._decode(self._ids[self._from :])
        if len(now) <= len(before) or now.endswith(REPLACEMENT):
            self.pieces.append("")
            return ""
        self._from, self._shown = self._shown, len(self._ids)
        self.pieces.append(now[len(before) :])
        return self._release(self.pieces[-1])

    def finish(self) -> str:
        """Return what was held back; bytes of a character that never became whole are dropped."""
        if self.stopped:
            return ""
        before = self._decode(self._ids[self._from : self._shown])
        rest = self._decode(self._ids[self._from :])[len(before) :].rstrip(REPLACEMENT)
        if rest and self.pieces:
            self.pieces[-1] += rest
        ready = self._release(rest) if rest else ""
        held, self._held = self._held, ""
        return ready if self.stopped else ready + held

    def _release(self, text: str) -> str:
        """Cut at a stop string; hold back an end that could be the start of one."""
        text = self._held + text
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut]

    def _decode(self, ids: list[int]) -> str:
        return self._decoder(ids) if ids else ""


def decoder(tokenizer: Any, skip_special: bool) -> Callable[[list[int]], str]:
    """What turns ids into text as ``tokenizer.decode`` does without its clean-up.

    Where that only hands on to the Rust library, the library itself: it is asked twice a token, and the way
    there takes ten times as long.
    """
    kind = type(tokenizer)
    handed_on = (
        kind.decode is PreTrainedTokenizerBase.decode
        and getattr(kind, "_decode", None) is PreTrainedTokenizerFast._decode
    )
    if handed_on:
        backend = tokenizer.backend_tokenizer
        return lambda ids: backend.decode(ids, skip_special_tokens=skip_special)
    return lambda ids: tokenizer.decode(
        ids, skip_special_tokens=skip_special, clean_up_tokenization_spaces=False
    )


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` are the start of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[-n:])), 0)
