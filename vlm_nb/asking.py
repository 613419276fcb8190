"""From a question to a request, and from a completion to a prediction: where family, image and text meet.

The batch runner and the single calls share these two steps; engines see only their result.
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from . import sources
from .answering import check_sizes, confidence, ending, named, rated
from .conversations import placed
from .errors import CapabilityError, OptionError, PromptError, SourceError, VLMError
from .families.base import Family, ImageLimits
from .grounding import Grounding
from .request import Completion, GenerationConfig, Message, Request
from .results import Frame, Prediction

if TYPE_CHECKING:
    from PIL.Image import Image

    from .engines.base import Capabilities, ModelInfo
    from .schema import AnswerSchema

Task = Literal["caption", "ask", "detect", "locate"]
DEMO_NOTE = "demo model: it knows drawn scenes only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One question about one image, or about several together; nothing is decoded yet.

    ``prompt`` is the final text; ``task`` says where it came from; ``asked`` whether boxes are wanted.
    ``history`` are earlier turns of a chat, whose images come first in ``sources``. ``joining`` counts the
    sources, at the end, that the new turn shows (None: all). ``turn`` is the user's message where its parts
    have an order of their own, ``phrase`` what a "locate" task looks for.
    """

    sources: tuple[sources.Source, ...]
    prompt: str
    task: Task = "ask"
    system: str | None = None
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    schema: AnswerSchema | None = None
    history: tuple[Message, ...] = ()
    joining: int | None = None
    turn: Message | None = None
    phrase: str | None = None
    index: int | None = None
    interactive: bool = True

    @property
    def asked(self) -> bool:
        """Whether the question asks for places."""
        return self.task in ("detect", "locate")

    @property
    def label(self) -> str | None:
        """What the images are called, for results and errors."""
        return ", ".join(source.label for source in self.sources) or None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request and what is needed to read its answer. ``first`` is the first upright image, for previews."""

    request: Request
    frames: tuple[Frame, ...]
    first: Image | None


@dataclass(frozen=True, slots=True)
class Asker:
    """The two steps for one loaded model. ``max_pixels`` and ``min_pixels`` are the user's."""

    family: Family
    info: ModelInfo
    capabilities: Capabilities
    label: str
    is_demo: bool = False
    max_pixels: int | None = None
    min_pixels: int | None = None

    @property
    def limits(self) -> ImageLimits:
        """The image bounds in force: the user's, else the checkpoint's, else the family's."""
        info = self.info
        found = ImageLimits(
            min_pixels=info.min_pixels, max_pixels=info.max_pixels, patch=info.patch, size=info.image_size
        )
        return self.family.limits_for(found, max_pixels=self.max_pixels, min_pixels=self.min_pixels)

    def prepare(self, job: Job) -> Prepared:
        """Decode and resize the images and build the request.

        Raises SourceError for an unreadable image, or where a caption or boxes have none; CapabilityError for
        several images where the model takes one, PromptError for an empty prompt.
        """
        self._check(job)
        images, frames, first = [], [], None
        for source in job.sources:
            loaded = sources.load_sized(source, fit=self._fit())
            seen, frame = self.family.prepare(loaded.image, self.limits)
            images.append(seen)
            frames.append(replace(frame, original=loaded.original_size))
            first = first or loaded.image
        return Prepared(self._request(job, tuple(images)), tuple(frames), first)

    def _fit(self) -> tuple[int, int] | None:
        """The sides, in pixels, below which a large JPEG must not be decoded: the model would miss detail."""
        area = self.limits.max_pixels
        side = math.ceil(math.sqrt(area)) if area else 0
        return (side, side) if side else None

    def _check(self, job: Job) -> None:
        if not job.prompt.strip():
            raise PromptError("the prompt is empty; write a question, or use caption() or ground().")
        if job.task != "ask" and not job.sources:
            raise SourceError("no image given; captions and boxes are of an image.")
        several = len(job.sources) > 1
        if several and not (self.family.multi_image and self.capabilities.multi_image):
            raise CapabilityError(
                f"{self.label} takes one image a prompt, {len(job.sources)} were given; ask about each alone."
            )
        if job.schema is not None and not self.capabilities.schema:
            raise CapabilityError(f"the engine of {self.label} cannot constrain answers to a schema.")

    def _request(self, job: Job, images: tuple[Image, ...]) -> Request:
        joining = len(images) if job.joining is None else job.joining
        system = (Message("system", (job.system,)),) if job.system else ()
        turn = job.turn or user_turn(self.family, job.prompt, joining, len(images) - joining)
        messages = (*system, *job.history, turn)
        return Request(
            messages=messages,
            images=images,
            prompt=self.family.plain_prompt(messages),
            generation=job.generation,
            processor_kwargs=self.family.processor_options(self.limits),
            schema=job.schema.constraint if job.schema else None,
            keep_special_tokens=self.family.keep_special_tokens,
            interactive=job.interactive,
        )

    def predict(self, job: Job, prepared: Prepared, completion: Completion) -> Prediction:
        """Read the answer. Raises the completion's error, or GenerationError when the sizes disagree."""
        if completion.error is not None:
            raise completion.error
        if self.family.keeps_size:
            check_sizes(prepared.frames, completion)
        parsed = job.schema.parse(completion.text) if job.schema else None
        found = self._read(job, prepared, completion)
        notes = ((DEMO_NOTE,) if self.is_demo else ()) + ending(completion) + found.notes
        return Prediction(
            found.caption,
            grounded_phrases=named(rated(found, completion), job.phrase),
            grounding=found.grounding,
            raw=completion.text,
            thinking=found.thinking,
            parsed=parsed,
            confidence=confidence(completion.token_logprobs),
            prompt=job.prompt,
            model=self.label,
            source=job.label,
            index=job.index,
            image_size=prepared.frames[0].original if prepared.frames else None,
            usage=completion.usage,
            notes=notes,
        )

    def _read(self, job: Job, prepared: Prepared, completion: Completion) -> Grounding:
        """Split the text by the family's format; a structured answer is text of its own."""
        if job.schema is not None:
            return Grounding(None, caption=completion.text)
        return self.family.parse(completion.text, prepared.frames, asked=job.asked)


def checked_text(prompt: Any, what: str = "a prompt") -> str | None:
    """Return ``prompt``, a text or None. Raises PromptError for anything else."""
    if prompt is None or isinstance(prompt, str):
        return prompt
    raise PromptError(f"{what} must be text, not {type(prompt).__name__} {repr(prompt)[:100]}.")


def user_turn(family: Family, prompt: str, images: int, first_index: int = 0) -> Message:
    """The user's message: images where the prompt marks them, else as the family likes it."""
    return placed(prompt, images, first_index) or family.user_message(prompt, images, first_index)


def images_of(source: Any, prompt: str | None) -> tuple[sources.Source, ...]:
    """The images of a call, as of ``together``. Raises OptionError where ``prompt`` seems to be the image."""
    try:
        return together(source)
    except VLMError as error:
        if isinstance(source, str) and sources.names_image(prompt) and not sources.names_image(source):
            raise OptionError(
                f"{prompt!r} seems to be the image and {source[:200]!r} the text: the image comes first."
            ) from None
        if isinstance(error, SourceError):
            sources.placed(error)
        raise


def together(source: Any) -> tuple[sources.Source, ...]:
    """Return the images of one prompt: one source, or a list of them; empty for an empty list (text only).

    Raises the SourceError of the first that cannot be used, OptionError for a folder or a glob.
    """
    if not sources.is_single(source) and not isinstance(source, list | tuple):
        shown = repr(source)[:200] if isinstance(source, str | os.PathLike) else type(source).__name__
        raise OptionError(f"{shown} may be many images; give them to model(source=...) or as a list.")
    items = sources.expand(source)
    for item in items:
        if isinstance(item, SourceError):
            raise item
    return tuple(item for item in items if isinstance(item, sources.Source))


def drain(pieces: Generator[str, None, Prediction]) -> Prediction:
    """Run a stream of pieces to its end and return its value."""
    while True:
        try:
            next(pieces)
        except StopIteration as stop:
            prediction: Prediction = stop.value
            return prediction
