"""Requests as people write them elsewhere → one ``Conversation``.

Forms: ``"text"``; ``(prompt, image)`` and ``(prompt, [images])`` as LMDeploy's pipeline takes them, with
``IMAGE_TOKEN`` marking an image's place in the prompt; a list of OpenAI chat messages (``image_url`` parts);
a list of transformers messages (``image`` parts); ``{"messages": [...]}`` as JSON Lines files hold it, with
Oumi's ``image_path``/``image_url``/``image_binary`` parts too.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from .errors import PromptError
from .request import ImageRef, Message, Role

IMAGE_TOKEN = "<image>"  # noqa: S105 - no password
"""Put it in a prompt where an image belongs: ``("<image> or <image>: which is older?", [a, b])``."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """``history`` are the earlier messages, ``turn`` the last user message; ``images`` are what the messages'
    ``ImageRef`` indices count: whatever ``sources.expand`` takes.
    """

    history: tuple[Message, ...]
    turn: Message
    images: tuple[Any, ...]


@dataclass(slots=True)
class _Reader:
    images: list[Any] = field(default_factory=list)

    def place(self, image: Any) -> ImageRef:
        self.images.append(image)
        return ImageRef(len(self.images) - 1)


def read(given: Any) -> Conversation:
    """Return the conversation that ``given`` describes.

    Raises PromptError saying which message or part is wrong, and what is allowed.
    """
    if isinstance(given, str):
        return _pair(given, ())
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str):
        return _pair(given[0], given[1] if isinstance(given[1], list | tuple) else (given[1],))
    if isinstance(given, Mapping) and "messages" in given:
        given = given["messages"]
    if isinstance(given, Sequence) and given and all(isinstance(m, Mapping) and "role" in m for m in given):
        return _messages(given)
    raise PromptError(
        f"{_short(given)} is no request; give (prompt, image), (prompt, [images]), a list of chat messages, "
        "or a text."
    )


def placed(prompt: str, images: int, first_index: int = 0) -> Message | None:
    """Return the user message of a prompt that marks its images' places, None for one that marks none.

    Raises PromptError where the number of marks and images differ.
    """
    marks = prompt.count(IMAGE_TOKEN)
    if not marks:
        return None
    if marks != images:
        raise PromptError(
            f"the prompt has {marks} {IMAGE_TOKEN} marks for {images} images; give one for each."
        )
    parts: list[str | ImageRef] = []
    for index, text in enumerate(prompt.split(IMAGE_TOKEN)):
        parts += [ImageRef(first_index + index - 1)] if index else []
        parts += [text] if text.strip() else []
    return Message("user", tuple(parts))


def _pair(prompt: str, images: Sequence[Any]) -> Conversation:
    turn = placed(prompt, len(images))
    refs = tuple(ImageRef(index) for index in range(len(images)))
    return Conversation((), turn or Message("user", (*refs, prompt)), tuple(images))


def _messages(given: Sequence[Mapping[str, Any]]) -> Conversation:
    reader = _Reader()
    messages = [_message(number, message, reader) for number, message in enumerate(given, 1)]
    if messages[-1].role != "user":
        raise PromptError(f"the last message is the {messages[-1].role}'s; it must be the user's.")
    return Conversation(tuple(messages[:-1]), messages[-1], tuple(reader.images))


def _message(number: int, given: Mapping[str, Any], reader: _Reader) -> Message:
    role = given["role"]
    if role not in get_args(Role):
        raise PromptError(f"message {number}: role {role!r}; allowed are {', '.join(get_args(Role))}.")
    content = given.get("content")
    parts = [content] if isinstance(content, str | Mapping) else content
    if not isinstance(parts, Sequence) or not parts:
        raise PromptError(f"message {number} has no content; give a text or a list of parts.")
    return Message(role, tuple(_part(number, part, reader) for part in parts))


def _part(number: int, part: Any, reader: _Reader) -> str | ImageRef:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind not in _PARTS:
        allowed = ", ".join(sorted(_PARTS))
        raise PromptError(f"message {number}: part {_short(part)} is not understood; types: {allowed}.")
    value = _PARTS[kind](part)
    if value is None:
        raise PromptError(f"message {number}: the {kind} part holds nothing.")
    return str(value) if kind == "text" else reader.place(value)


def _text(part: Mapping[str, Any]) -> Any:
    return part.get("text", part.get("content"))


def _image_url(part: Mapping[str, Any]) -> Any:
    value = part.get("image_url", part.get("content"))
    return value.get("url") if isinstance(value, Mapping) else value


def _image(part: Mapping[str, Any]) -> Any:
    names = ("image", "url", "path", "base64", "content")
    name = next((name for name in names if part.get(name) is not None), None)
    return base64.b64decode(part[name]) if name == "base64" else part.get(name or "")


def _binary(part: Mapping[str, Any]) -> Any:
    value = part.get("content", part.get("binary"))
    return base64.b64decode(value) if isinstance(value, str) else value


_PARTS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "text": _text,
    "image_url": _image_url,
    "image": _image,
    "image_path": _image,
    "image_binary": _binary,
}


def _short(value: Any) -> str:
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) <= 80 else text[:79] + "…"
