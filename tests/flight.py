"""Driving the in-flight loop step by step, on the test's own thread, and what single requests answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_helpers import ignore

from vlm_nb.engines.base import Ticket
from vlm_nb.engines.hf import scheduler
from vlm_nb.engines.hf.rows import limit_of
from vlm_nb.engines.hf.scheduler import Scheduler
from vlm_nb.engines.spec import LoadSpec
from vlm_nb.engines.transformers import TransformersBackend
from vlm_nb.request import Completion, Request

CLOSE = 1e-3


@dataclass
class Answer:
    """``tokens`` as chosen (an end token included), ``scores`` [tokens, vocabulary] they were chosen from."""

    tokens: list[int] = field(default_factory=list)
    scores: list[torch.Tensor] = field(default_factory=list)
    completion: Completion | None = None

    def same(self, other: Answer, tolerance: float = CLOSE) -> bool:
        if self.tokens != other.tokens:
            return False
        return bool(torch.allclose(torch.stack(self.scores), torch.stack(other.scores), atol=tolerance))


class Flight:
    """A backend that is stepped by hand; every choice is recorded."""

    def __init__(self, backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        self.backend = backend
        self.answers: dict[Ticket, Answer] = {}
        self.widths: list[int] = []
        plain = scheduler.choose

        def recorded(rows: Sequence[Any], scores: torch.Tensor) -> list[tuple[int, float]]:
            chosen = plain(rows, scores)
            self.widths.append(len(rows))
            for row, (token, _), own in zip(rows, chosen, scores, strict=True):
                answer = self.answers.setdefault(row.ticket, Answer())
                answer.tokens.append(token)
                answer.scores.append(own.clone())
            return chosen

        monkeypatch.setattr(scheduler, "choose", recorded)

    @property
    def loop(self) -> Scheduler:
        assert isinstance(self.backend._loop, Scheduler)
        return self.backend._loop

    @property
    def model(self) -> Any:
        return self.backend._loaded.model

    @property
    def grid(self) -> int:
        """Pixels; images whose sides are multiples of it stay as large as they are."""
        return self.backend._loaded.info.patch or 28

    def never_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let no token end an answer: it is as long as it may be."""
        monkeypatch.setattr(self.backend._loaded, "eos", frozenset())
        monkeypatch.setattr(self.model.generation_config, "eos_token_id", None)

    def admit(self, *requests: Request) -> list[Ticket]:
        tickets = [Ticket(request) for request in requests]
        with self.backend.context():
            self.backend.admit(tickets)
            while len(self.backend._preparing):  # so that a step has all of them to choose from
                self.backend._preparing.wait(1)
                self.backend._collect()
        return tickets

    def step(self) -> None:
        with self.backend.context():
            self.backend.step()

    def run(self, requests: Sequence[Request], late: Mapping[int, Request] | None = None) -> list[Answer]:
        """Answer ``requests`` and, from step n on, ``late[n]`` (they come last in what is returned)."""
        tickets, late = self.admit(*requests), dict(late or {})
        count = 0
        while self.backend.running or late:
            if request := late.pop(count, None):
                tickets += self.admit(request)
            self.step()
            count += 1
            assert count < 2000, "the loop does not end"
        return [self.answer(ticket) for ticket in tickets]

    def answer(self, ticket: Ticket) -> Answer:
        answer = self.answers.get(ticket, Answer())
        answer.completion = ticket.result(0)
        return answer

    def single(self, request: Request) -> Answer:
        """What the model's own ``generate`` answers to ``request`` alone, greedily, and afresh."""
        encoder = self.backend._loaded.encoder
        if encoder._prepared is not None:
            encoder._prepared.kept.clear()
        with self.backend.context():
            encoded = encoder.encode(request)
            loaded = self.backend._loaded
            out = self.model.generate(
                **{key: tensor.to(loaded.device) for key, tensor in encoded.inputs.items()},
                max_new_tokens=limit_of(loaded, encoded, request.generation.max_new_tokens),
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
            )
        start = 1 if self.model.config.is_encoder_decoder else encoded.prompt_tokens
        return Answer(out.sequences[0, start:].tolist(), [scores[0].float() for scores in out.logits])


@contextmanager
def flying(folder: Path | str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[Flight]:
    """The folder's model in fp32, with a head of its own whose scores are far apart."""
    options = {"engine_args": {"reuse": False}, "dtype": "float32", **options}
    backend = TransformersBackend(LoadSpec(model=str(folder), **options))
    with backend.context():
        backend.open(ignore, threading.Event())
    flight = Flight(backend, monkeypatch)
    try:
        yield flight
    finally:
        backend.close()


def stir(flight: Flight) -> None:
    """Untie and redraw the output head and enlarge the weights: random models repeat one word otherwise."""
    head = flight.model.get_output_embeddings()
    drawn = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(5))
    head.weight = torch.nn.Parameter(drawn.to(head.weight.device))
    with torch.no_grad():
        for parameter in flight.model.parameters():
            if parameter.ndim >= 2 and parameter is not head.weight:
                parameter.mul_(6)


def assert_all_same(found: Sequence[Answer], expected: Sequence[Answer]) -> None:
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one.completion is None or one.completion.error is None, one.completion.error
        assert one.tokens == other.tokens, f"answer {index}"
        assert one.same(other), f"scores of answer {index}"


def assert_a_cancelled_row_leaves(flight: Flight, requests: Sequence[Request], *, after: int) -> None:
    """Cancel the second row after so many steps: it keeps what it has, the others end as if alone."""
    expected = [flight.single(request) for request in requests]
    tickets = flight.admit(*requests)
    for _ in range(after):
        flight.step()
    tickets[1].cancel()
    with flight.backend.context():
        flight.backend.drop(tickets[1])
    tickets[1].finish_cancelled()
    while flight.backend.running:
        flight.step()
    found = [flight.answer(ticket) for ticket in tickets]
    assert found[1].completion is not None
    assert found[1].completion.usage.finish_reason == "cancelled"
    assert found[1].tokens == expected[1].tokens[: len(found[1].tokens)]
    assert_all_same([found[0], *found[2:]], [expected[0], *expected[2:]])
