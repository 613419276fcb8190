"""What travels to an engine and back: messages, generation settings, requests and completions.

Nothing here knows about model families or front ends.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .errors import OptionError, VLMError, unknown_option

if TYPE_CHECKING:
    from PIL.Image import Image

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "cancelled", "error", "runaway"]
Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """The place of an image in a message: ``index`` counts in ``Request.images``."""

    index: int


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; ``parts`` are texts and places of images, in order."""

    role: Role
    parts: tuple[str | ImageRef, ...]

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part for part in self.parts if isinstance(part, str))


def settings_of(given: Any) -> dict[str, Any]:
    """Return ``generation_config`` as a dict; None is an empty one. Raises OptionError for no mapping."""
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise OptionError(f'generation_config={given!r}: expected a dict such as {{"max_new_tokens": 64}}.')
    return dict(given)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationConfig:
    """How to generate, in Hugging Face's names. Greedy unless sampling is asked for.

    ``do_sample=None`` means: sample when ``temperature`` is above zero. ``seed`` makes sampling repeatable
    whatever else is in the batch. ``stop`` are strings that end the answer (and are not part of it).
    ``cut_repeats=False`` lets an answer that repeats itself without end run on to its limit.
    """

    max_new_tokens: int = 512
    min_new_tokens: int = 0
    do_sample: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    num_beams: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    cut_repeats: bool = True

    def __post_init__(self) -> None:
        given: Any = self.stop  # a lone text or a list is fine, too
        listed = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
        object.__setattr__(self, "stop", listed)
        _check_ranges(self)

    @property
    def sampling(self) -> bool:
        """Whether answers are drawn at random (else: greedy or beam search)."""
        if self.temperature == 0:
            return False
        return bool(self.temperature) if self.do_sample is None else self.do_sample

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The allowed keys, in documented order."""
        return tuple(f.name for f in dataclasses.fields(cls))

    def updated(self, changes: Mapping[str, Any]) -> GenerationConfig:
        """Return a copy with ``changes`` applied; a value of None keeps what was there.

        Raises OptionError for an unknown key (naming the nearest) or a value out of range.
        """
        for key in changes:
            if key not in self.names():
                raise unknown_option("generation key", key, self.names())
        return dataclasses.replace(self, **{k: v for k, v in changes.items() if v is not None})

    def to_dict(self) -> dict[str, Any]:
        """The settings that differ from the defaults, JSON-safe."""
        default = GenerationConfig()
        values = {
            key: getattr(self, key) for key in self.names() if getattr(self, key) != getattr(default, key)
        }
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


_RANGES: dict[str, tuple[type, float, float]] = {
    "max_new_tokens": (int, 1, 1_000_000),
    "min_new_tokens": (int, 0, 1_000_000),
    "temperature": (float, 0.0, 100.0),
    "top_p": (float, 0.0, 1.0),
    "top_k": (int, 0, 1_000_000),
    "repetition_penalty": (float, 0.01, 100.0),
    "num_beams": (int, 1, 64),
    "seed": (int, 0, 2**63 - 1),
}


def _check_ranges(config: GenerationConfig) -> None:
    for key, (kind, low, high) in _RANGES.items():
        value = getattr(config, key)
        if value is None:
            continue
        number: Any = numbers.Integral if kind is int else numbers.Real
        if isinstance(value, bool) or not isinstance(value, number) or not low <= value <= high:
            what = "a whole number" if kind is int else "a number"
            raise OptionError(f"{key}={value!r}: expected {what} from {low:g} to {high:g}.")
        if type(value) not in (int, float):  # NumPy's
            object.__setattr__(config, key, kind(value))
    for key in ("do_sample", "cut_repeats"):
        if not isinstance(getattr(config, key), bool | None):
            raise OptionError(f"{key}={getattr(config, key)!r}: expected True or False.")
    if not all(isinstance(text, str) and text for text in config.stop):
        raise OptionError(f"stop={config.stop!r}: expected non-empty strings.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt for an engine.

    ``images`` are what the model shall see (already resized by the family); ``image_keys`` identify their
    pixels for caches (same key, same pixels). ``prompt`` is a complete prompt for models without a chat
    template; where it is None the engine renders ``messages``. ``processor_kwargs`` switch the processor's
    own resize and crop off. ``schema`` is a JSON schema, regex or grammar description for constrained
    decoding. ``keep_special_tokens`` decodes with special tokens (formats that box with them).
    """

    messages: tuple[Message, ...]
    images: tuple[Image, ...] = ()
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    prompt: str | None = None
    image_keys: tuple[str, ...] = ()
    processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] | None = None
    keep_special_tokens: bool = False
    interactive: bool = True

    @property
    def input_sizes(self) -> tuple[Size, ...]:
        """Width and height of each prepared image."""
        return tuple(image.size for image in self.images)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an answer cost. Tokens are counts (None where an engine does not tell), ``seconds`` wall time.

    ``cached_tokens`` are those of the prompt whose keys and values the engine had already.
    ``finish_reason`` is "stop" (the answer ended), "length" (it was cut at ``max_new_tokens``), "runaway" (it
    was cut because it repeated itself without end), "cancelled" or "error".
    """

    image_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    new_tokens: int | None = None
    seconds: float | None = None
    first_token_seconds: float | None = None
    finish_reason: FinishReason = "stop"

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe dict of all fields."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What an engine answered.

    ``seen_sizes`` is width and height of each image as the model saw it (None where an engine cannot tell).
    ``token_logprobs`` are natural-log probabilities of the new tokens, ``token_texts`` their texts. With an
    ``error`` the ``text`` is whatever had been produced before it.
    """

    text: str = ""
    usage: Usage = field(default_factory=Usage)
    error: VLMError | None = None
    seen_sizes: tuple[Size, ...] | None = None
    token_logprobs: tuple[float, ...] | None = None
    token_texts: tuple[str, ...] | None = None
