"""A conversation about images: the history goes with every question, and images may join later."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .asking import Job, drain, images_of, user_turn
from .errors import CapabilityError, PromptError
from .request import Message
from .results import Prediction

if TYPE_CHECKING:
    from .model import VLM
    from .sources import Source


@dataclass(frozen=True, slots=True)
class Turn:
    """One question with the images that joined at it, and its answer."""

    sources: tuple[Source, ...]
    user: Message
    answer: Prediction


class Chat:
    """Made by ``model.chat(...)``; ``ask`` continues it, ``undo`` takes the last turn back.

    Boxes of every answer are (x_min, y_min, x_max, y_max) in 0..1 of the upright original image that
    ``image_index`` counts, over all images of the conversation.
    """

    def __init__(self, model: VLM, source: Any = None, *, system: str | None = None, **options: Any) -> None:
        if not model.engine.capabilities.chat:
            raise CapabilityError(f"{model.name} takes single questions only; use ask().")
        model.generation(options)  # a wrong setting fails here, not at the first question
        self.model = model
        self.system = system
        self.options = options
        self.turns: list[Turn] = []
        self._joining = _new(source)

    def ask(self, question: str, source: Any = None, **options: Any) -> Prediction:
        """Continue with ``question``; ``source`` is an image, or a list, that joins now.

        Keywords are generation settings for this turn. A failed turn leaves the conversation as it was.
        Raises a VLMError.
        """
        return drain(self.stream(question, source, **options))

    def stream(self, question: str, source: Any = None, **options: Any) -> Generator[str, None, Prediction]:
        """As ``ask``, yielding pieces of the raw answer; the generator's return value is the Prediction."""
        joining = self._joining + _new(source)
        job = self._job(question, joining, options)
        answer = yield from self.model.stream_job(job)
        first = len(job.sources) - len(joining)
        user = user_turn(self.model.family, question, len(joining), first)
        self.turns.append(Turn(joining, user, answer))
        self._joining = ()
        return answer

    def undo(self) -> str:
        """Take the last turn back, its images too, and return its question. Raises PromptError for none."""
        if not self.turns:
            raise PromptError("there is no turn to take back.")
        turn = self.turns.pop()
        if not self.turns:
            self._joining = turn.sources
        return turn.user.text

    @property
    def images(self) -> tuple[Source, ...]:
        """All images so far, in the order that ``image_index`` counts."""
        return tuple(source for turn in self.turns for source in turn.sources)

    @property
    def history(self) -> tuple[Message, ...]:
        """The turns so far as messages."""
        pairs = ((turn.user, Message("assistant", (turn.answer.raw,))) for turn in self.turns)
        return tuple(message for pair in pairs for message in pair)

    def _job(self, question: str, joining: tuple[Source, ...], options: dict[str, Any]) -> Job:
        job = self.model.job((), question, "ask", system=self.system, **{**self.options, **options})
        return dataclasses.replace(
            job, sources=self.images + joining, history=self.history, joining=len(joining)
        )

    def __repr__(self) -> str:
        images = len(self.images) + len(self._joining)
        return f"<Chat with {self.model.name!r}: {len(self.turns)} turns, {images} images>"


def _new(source: Any) -> tuple[Source, ...]:
    """The images that join a turn; None stands for none."""
    return () if source is None else images_of(source, None)
