"""``--chat``: the last question and answer, continued.

Images that exist only as Python objects are held weakly until a conversation really begins: a magic must not
keep a user's image alive.
"""

from __future__ import annotations

import dataclasses
import weakref
from typing import TYPE_CHECKING, Any

from ..errors import PromptError

if TYPE_CHECKING:
    from ..asking import Job
    from ..chat import Chat
    from ..model import VLM
    from ..results import Prediction
    from ..sources import Source


class Conversation:
    """What ``--chat`` goes on from: a chat, or the last single answer.

    ``begun`` says that the last ``chat`` call began a new one.
    """

    def __init__(self) -> None:
        self.begun = False
        self._chat: Chat | None = None
        self._last: tuple[VLM, Job, tuple[Any, ...], Prediction] | None = None

    def note(self, model: VLM, job: Job, answer: Prediction) -> None:
        """Remember a single answer as the possible start of a conversation."""
        payloads = tuple(_faint(source.payload) for source in job.sources)
        bare = tuple(dataclasses.replace(source, payload=None) for source in job.sources)
        self._chat = None
        self._last = (model, dataclasses.replace(job, sources=bare), payloads, answer)

    def chat(self, model: VLM, system: str | None, *, may_begin: bool) -> Chat:
        """Return the conversation to continue with ``model``; a new one, if it ``may_begin``.

        Raises PromptError where there is nothing to continue.
        """
        from ..chat import Chat

        chat = self._chat or self._grown()
        if chat is not None and chat.model is not model:
            chat = None
        if chat is None and not may_begin:
            raise PromptError(f"no conversation with {model.name} to continue: ask about an image first.")
        self.begun = chat is None
        if chat is None:
            chat = Chat(model, system=system)
        chat.system = system if system is not None else chat.system
        self._chat, self._last = chat, None
        return chat

    def _grown(self) -> Chat | None:
        """The last single answer as the first turn of a chat."""
        from ..asking import user_turn
        from ..chat import Chat, Turn

        if self._last is None:
            return None
        model, job, payloads, answer = self._last
        images = tuple(_firm(source, held) for source, held in zip(job.sources, payloads, strict=True))
        chat = Chat(model, system=job.system)
        chat.turns.append(Turn(images, user_turn(model.family, job.prompt, len(images), 0), answer))
        return chat


def _faint(payload: Any) -> Any:
    if isinstance(payload, (str, bytes)) or hasattr(payload, "__fspath__"):
        return payload
    try:
        return weakref.ref(payload)
    except TypeError:
        return payload


def _firm(source: Source, held: Any) -> Source:
    payload = held() if isinstance(held, weakref.ref) else held
    if payload is None:
        raise PromptError("the image of the last conversation is gone; give it again: %vqa --chat IMAGE …")
    return dataclasses.replace(source, payload=payload)
