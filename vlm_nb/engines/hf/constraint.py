"""Constrained decoding with xgrammar: one compiler a model, one matcher a row.

Answers are written without free whitespace, so that a model cannot fill its limit with blanks. Special tokens
other than the end are never part of a constrained answer, although their text may fit a string.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from ... import extras
from ...errors import MissingDependency, SchemaError

CACHE_BYTES = 256 * 2**20
THREADS = 4


class Constraint:
    """What one row's answer may still be. Used by one row, once."""

    def __init__(self, matcher: Any, bitmask: torch.Tensor, forbidden: torch.Tensor) -> None:
        self._matcher = matcher
        self._bitmask = bitmask
        self._forbidden = forbidden

    def mask(self, scores: torch.Tensor) -> torch.Tensor:
        """Return ``scores`` ([1, vocabulary], float) with what cannot come next at minus infinity."""
        import xgrammar

        if self._matcher.is_terminated():
            return scores
        masked = scores.to(torch.float32).clone()
        masked[:, self._forbidden.to(masked.device)] = -torch.inf
        if self._matcher.fill_next_token_bitmask(self._bitmask, 0):
            xgrammar.apply_token_bitmask_inplace(masked, self._bitmask.to(masked.device))
        return masked

    def accept(self, token: int) -> None:
        """Advance by the chosen token."""
        if not self._matcher.is_terminated():
            self._matcher.accept_token(token)


class Grammars:
    """The constraints of one loaded model; compiled schemas are kept and shared between rows.

    ``vocabulary`` is the width of the model's scores, which may exceed the tokenizer's.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, eos: frozenset[int]) -> None:
        try:
            import xgrammar
        except ImportError:
            raise MissingDependency(
                f"answers in a given form need xgrammar: {extras.command('structured')}"
            ) from None
        self._vocabulary = vocabulary
        info = xgrammar.TokenizerInfo.from_huggingface(
            tokenizer, vocab_size=vocabulary, stop_token_ids=sorted(eos)
        )
        self._compiler = xgrammar.GrammarCompiler(
            info, max_threads=THREADS, cache_enabled=True, cache_limit_bytes=CACHE_BYTES
        )
        special = [token for token in tokenizer.all_special_ids if token not in eos]
        self._forbidden = torch.tensor(special, dtype=torch.long)

    def constraint(self, schema: Mapping[str, Any]) -> Constraint:
        """Return a fresh constraint for ``{"json": …}``, ``{"regex": …}`` or ``{"choices": […]}``.

        Raises SchemaError where the grammar engine cannot express it, with its reason.
        """
        import xgrammar

        ((kind, value),) = schema.items()
        try:
            compiled = _compile(self._compiler, kind, value)
            matcher = xgrammar.GrammarMatcher(compiled)
        except (RuntimeError, ValueError) as error:
            raise SchemaError(f"the {kind} schema cannot be used: {_reason(error)}") from None
        return Constraint(matcher, xgrammar.allocate_token_bitmask(1, self._vocabulary), self._forbidden)


def _compile(compiler: Any, kind: str, value: Any) -> Any:
    if kind == "json":
        return compiler.compile_json_schema(json.dumps(value), any_whitespace=False)
    if kind == "regex":
        return compiler.compile_regex(value)
    if kind == "choices":
        return compiler.compile_grammar(
            f"root ::= {' | '.join(json.dumps(choice, ensure_ascii=False) for choice in value)}"
        )
    raise ValueError(f"unknown kind of schema {kind!r}")


def _reason(error: BaseException) -> str:
    """The grammar engine's message, without the place in its own source."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line.split(": ", 1)[-1] if "/cpp/" in line else line
