"""What a model family is: its prompts, its image preparation, its grounding format, its quirks.

A family is plain facts plus one geometric step. Engines never see it; it never sees an engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..grounding import Grounding, parse
from ..request import ImageRef, Message
from ..results import Frame

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """Bounds on the prepared image, in pixels of area; None leaves the family's own bound.

    ``patch`` is the step that both sides must be a multiple of (patch size × merge size), read from the
    checkpoint's processor where it says so. ``size`` is the fixed (width, height) of models that take one size.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None
    patch: int | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The facts about one model family; subclasses override ``prepare`` where the geometry differs.

    ``model_types`` are the ``model_type`` values of ``config.json`` that it serves; ``name_patterns`` are
    lower-case fragments of model names, for models known by name only (behind a server). ``format`` names the
    grounding format (see ``grounding.FORMATS``). ``locate_prompt`` holds ``{phrase}``. ``quantization_skips``
    are module-name prefixes that stay in 16 bit. ``version`` is part of the ledger key: raise it when a change
    here can change an answer. ``chat=False`` marks models without a chat template (the prompt is rendered by
    ``plain_prompt``).
    """

    name: str
    model_types: tuple[str, ...] = ()
    name_patterns: tuple[str, ...] = ()
    format: str | None = None
    caption_prompt: str = "Describe this image."
    detect_prompt: str = "Locate every object in the image and output the bbox coordinates in JSON format."
    locate_prompt: str = "Locate every {phrase} in the image and output the bbox coordinates in JSON format."
    keep_special_tokens: bool = False
    quantization_skips: tuple[str, ...] = ()
    limits: ImageLimits = field(default_factory=ImageLimits)
    processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    chat: bool = True
    multi_image: bool = True
    version: int = 1
    notes: str = ""

    def prepare(self, image: Image, limits: ImageLimits | None = None) -> tuple[Image, Frame]:
        """Make the only geometric change: return the image that the model shall see, and its inverse mapping.

        ``image`` is an upright RGB image. The default leaves the image as it is, unless it has more than
        ``max_pixels`` pixels.
        """
        from .preparation import shrink_to

        return shrink_to(image, self.merged_limits(limits).max_pixels)

    def merged_limits(self, limits: ImageLimits | None) -> ImageLimits:
        """Return the family's limits with the caller's set values on top."""
        if limits is None:
            return self.limits
        ours = self.limits
        return ImageLimits(
            min_pixels=limits.min_pixels or ours.min_pixels,
            max_pixels=limits.max_pixels or ours.max_pixels,
            patch=limits.patch or ours.patch,
            size=limits.size or ours.size,
        )

    def prompt_for(self, task: str, phrase: str | None = None) -> str:
        """Return the prompt of ``task``: "caption", "detect" or "locate" (which needs ``phrase``)."""
        if task == "locate":
            return self.locate_prompt.replace("{phrase}", phrase or "object")
        return self.caption_prompt if task == "caption" else self.detect_prompt

    def user_message(self, prompt: str, images: int, first_index: int = 0) -> Message:
        """Return the user turn with ``images`` images before the text, as most families were trained."""
        refs = tuple(ImageRef(first_index + i) for i in range(images))
        return Message("user", (*refs, prompt))

    def plain_prompt(self, messages: Sequence[Message]) -> str | None:
        """Return the complete prompt of a family without a chat template, else None."""
        return None

    def parse(self, text: str, frames: Sequence[Frame], *, asked: bool) -> Grounding:
        """Read ``text`` as this family writes it; boxes come back in 0..1 of the original images."""
        return parse(text, self.format, frames=frames, asked=asked)
