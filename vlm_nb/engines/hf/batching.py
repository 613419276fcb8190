"""Rows: requests under way; which of them go together, and how their tensors become one batch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ...request import Completion, FinishReason, Usage
from ..base import Ticket
from ..runaway import LoopWatch
from .decoding import TextStream
from .encoding import Encoded
from .sampling import Sampler


@dataclass(slots=True, eq=False)
class Row:
    """One request under way. ``new_ids`` are the tokens of the answer; ``limit`` is how many it may have.

    A row that was interrupted (memory ran out) goes on from ``new_ids``: nothing is generated or shown twice.
    ``cached`` counts the prompt's tokens that were known already; a ``single`` row is
    prefilled with no other, and waits for a slot although it is interactive. ``watch`` cuts a runaway answer.
    ``start`` is the token that an encoder-decoder's answer follows; elsewhere it follows the prompt.
    """

    ticket: Ticket
    encoded: Encoded
    sampler: Sampler
    stream: TextStream
    limit: int
    eos: frozenset[int]
    image_token: int | None = None
    new_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    first_token_seconds: float | None = None
    cached: int | None = None
    single: bool = False
    watch: LoopWatch | None = None
    start: int | None = None

    @property
    def searches(self) -> bool:
        """Whether the answer comes from a beam search."""
        return self.ticket.request.generation.num_beams > 1

    @property
    def length(self) -> int:
        """Tokens of prompt and answer so far."""
        return self.encoded.prompt_tokens + len(self.new_ids)

    @property
    def most(self) -> int:
        """Tokens that prompt and answer may have in the end."""
        return self.encoded.prompt_tokens + self.limit

    @property
    def ids(self) -> torch.Tensor:
        """Prompt and answer so far, unpadded, [1, length], on the CPU."""
        prompt = self.encoded.inputs["input_ids"]
        return torch.cat([prompt, torch.tensor([self.new_ids], dtype=prompt.dtype)], dim=1)

    def take(self, token: int, logprob: float | None) -> bool:
        """Add the next token and show its text; True once the answer is complete and the ticket finished."""
        if self.ticket.cancelled:
            self.ticket.finish_cancelled()
            return True
        if self.first_token_seconds is None:
            self.first_token_seconds = self.ticket.seconds
        self.sampler.accept(token)
        if token in self.eos:
            return self.complete("stop")
        self.new_ids.append(token)
        if logprob is not None:
            self.logprobs.append(logprob)
        self.ticket.push(self.stream.add(token))
        if self.stream.stopped:
            return self.complete("stop")
        if len(self.new_ids) >= self.limit:
            return self.complete("length")
        looped = self.watch is not None and self.watch.sees_loop(self.new_ids)
        return looped and self.complete("runaway")

    def complete(self, reason: FinishReason) -> bool:
        """Finish the ticket with the answer so far; always True."""
        self.ticket.push(self.stream.finish())
        encoded = self.encoded
        usage = Usage(
            image_tokens=encoded.image_tokens,
            cached_tokens=self.cached,
            prompt_tokens=encoded.prompt_tokens,
            new_tokens=len(self.new_ids),
            seconds=self.ticket.seconds,
            first_token_seconds=self.first_token_seconds,
            finish_reason=reason,
        )
        self.ticket.finish(
            Completion(
                text=self.ticket.text,
                usage=usage,
                seen_sizes=encoded.seen_sizes,
                token_logprobs=tuple(self.logprobs) if len(self.logprobs) == len(self.new_ids) else None,
                token_texts=tuple(self.stream.pieces),
            )
        )
        return True

    @property
    def kind(self) -> tuple[Any, ...]:
        """Rows of one kind can be batched: they have the same tensors, of shapes that can be joined."""
        alone = id(self) if self.searches or self.single else None
        others = [
            (key, tensor.dtype, tuple(tensor.shape[1:]))
            for key, tensor in sorted(self.encoded.inputs.items())
            if not self.is_sequence(key)
        ]
        so_far = 0 if self.start is None else len(self.new_ids)
        return (alone, so_far, tuple(sorted(self.encoded.inputs)), tuple(others))

    def is_sequence(self, key: str) -> bool:
        """Whether the tensor ``key`` has one value a token."""
        tensor = self.encoded.inputs[key]
        by_token = tensor.ndim == 2 and tensor.shape == self.encoded.inputs["input_ids"].shape
        return by_token and not key.startswith(("pixel", "image"))


def pick(waiting: Sequence[Row], rows: int, tokens: int | None) -> list[Row]:
    """Choose the next batch: the first interactive row (else the first), and those most like it in length.

    At most ``rows`` of them, and at most ``tokens`` (padding and answers included) together; one always.
    """
    first = next((row for row in waiting if row.ticket.request.interactive), waiting[0])
    kind = first.kind
    alike = [row for row in waiting if row is not first and row.kind == kind]
    alike.sort(key=lambda row: abs(row.length - first.length))
    chosen = [first]
    for row in alike[: rows - 1]:
        widest = max(r.most for r in [*chosen, row])
        if tokens is not None and widest * (len(chosen) + 1) > tokens:
            break
        chosen.append(row)
    return chosen


def collate(
    rows: Sequence[Row], pad: int, device: torch.device, dtype: torch.dtype, *, without: Collection[str] = ()
) -> dict[str, torch.Tensor]:
    """Put rows of one kind into one batch: sequences padded on the left, everything else joined.

    Inputs named in ``without`` are left where they are. An encoder counts places from the first column, so
    its sequences are padded on the right.
    """
    width = max(row.length for row in rows)
    batch = {}
    if rows[0].start is not None:
        width -= len(rows[0].new_ids)
        batch["decoder_input_ids"] = torch.tensor([[row.start, *row.new_ids] for row in rows], device=device)
    for key in rows[0].encoded.inputs:
        if key in without:
            continue
        if rows[0].is_sequence(key):
            fill = pad if key == "input_ids" else 0
            batch[key] = torch.cat([_padded(row, key, width, fill) for row in rows]).to(device)
        else:
            batch[key] = joined([row.encoded.inputs[key] for row in rows], device, dtype)
    return batch


def joined(parts: Sequence[torch.Tensor], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """One tensor of ``parts`` on ``device``; those with fractions in ``dtype``.

    For a GPU each is copied by itself: pinned ones are then copied while the processor goes on.
    """
    if device.type == "cuda":
        parts = [part.to(device, non_blocking=True) for part in parts]
    tensor = torch.cat(list(parts))
    return tensor.to(device, dtype if tensor.is_floating_point() else None)


def _padded(row: Row, key: str, width: int, fill: int) -> torch.Tensor:
    tensor = row.encoded.inputs[key]
    if row.start is not None:
        return torch.nn.functional.pad(tensor, (0, width - tensor.shape[1]), value=fill)
    if key == "input_ids":
        tensor = row.ids
    elif row.new_ids:  # the answer so far: visible, and nothing but text
        answer = torch.full((1, len(row.new_ids)), int(key == "attention_mask"), dtype=tensor.dtype)
        tensor = torch.cat([tensor, answer], dim=1)
    return torch.nn.functional.pad(tensor, (width - tensor.shape[1], 0), value=fill)
