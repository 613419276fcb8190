"""What a model family is: its prompts, its image preparation, its grounding format, its quirks.

A family is plain facts plus one geometric step. Engines never see it; it never sees an engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..grounding import Grounding, parse
from ..request import ImageRef, Message, Size
from ..results import Frame
from .preparation import Geometry, ImageLimits, Shrink, fit

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Family", "ImageLimits"]


_ARTICLE = re.compile(r"^(?:the|an?)\s+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The facts about one model family; subclasses override what a fact cannot say.

    ``model_types`` are the ``model_type`` values of ``config.json`` that it serves; ``name_patterns`` are
    lower-case fragments of model names, for models known by name only (behind a server). ``format`` names the
    grounding format (see ``grounding.FORMATS``). ``locate_prompt`` holds ``{phrase}``. ``quantization_skips``
    are module-name prefixes that stay in 16 bit. ``version`` is part of the ledger key: raise it when a
    change here can change an answer. ``geometry`` says how an image becomes what the model sees.
    ``chat=False`` marks models without a chat template: ``plain_prompt`` renders the prompt, with
    ``image_placeholder`` for each image where the processor wants one.
    ``in_transformers=False`` marks models that transformers cannot load without their own code: they are
    known here for use through servers.
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
    geometry: Geometry = field(default_factory=Shrink)
    processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    chat: bool = True
    image_placeholder: str = ""
    in_transformers: bool = True
    multi_image: bool = True
    version: int = 1
    notes: str = ""

    @property
    def keeps_size(self) -> bool:
        """Whether the model must see exactly the prepared size (the processor's own resize is off).

        Elsewhere the processor maps the whole image in its own way, and boxes relative to it stay right.
        """
        return self.processor_kwargs.get("do_resize") is False

    def processor_options(self, limits: ImageLimits | None = None) -> Mapping[str, Any]:
        """Return what the processor is told about an image that was prepared within ``limits``."""
        return self.processor_kwargs

    def frame_for(self, size: Size, limits: ImageLimits | None = None) -> Frame:
        """Return where an original image of ``size`` (width, height) will lie in what the model sees."""
        return self.geometry.frame(size, self.merged_limits(limits))

    def prepare(self, image: Image, limits: ImageLimits | None = None) -> tuple[Image, Frame]:
        """Make the only geometric change: return the image that the model shall see, and its inverse mapping.

        ``image`` is an upright RGB image; ``limits`` come from the checkpoint and the user (``limits_for``).
        """
        frame = self.frame_for(image.size, limits)
        return fit(image, frame), frame

    def limits_for(
        self, found: ImageLimits, *, max_pixels: int | None = None, min_pixels: int | None = None
    ) -> ImageLimits:
        """Return the limits of a loaded checkpoint: the user's, else the checkpoint's, else the family's.

        ``found`` is what the checkpoint's image processor says. It may lower the family's ``max_pixels`` but
        not raise it (Qwen2.5-VL's own allows 16,000 tokens an image); the user may.
        """
        limits = self.geometry.checkpoint(found)
        areas = [area for area in (self.limits.max_pixels, limits.max_pixels) if area]
        return replace(
            self.merged_limits(limits),
            max_pixels=max_pixels or min(areas, default=None),
            min_pixels=min_pixels or limits.min_pixels or self.limits.min_pixels,
        )

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
            words = (phrase or "object").strip()
            if "every {phrase}" in self.locate_prompt:  # "every the red car" is not English
                words = _ARTICLE.sub("", words) or words
            return self.locate_prompt.replace("{phrase}", words)
        return self.caption_prompt if task == "caption" else self.detect_prompt

    def user_message(self, prompt: str, images: int, first_index: int = 0) -> Message:
        """Return the user turn with ``images`` images before the text, as most families were trained."""
        refs = tuple(ImageRef(first_index + i) for i in range(images))
        return Message("user", (*refs, prompt))

    def plain_prompt(self, messages: Sequence[Message]) -> str | None:
        """Return the complete prompt of a family without a chat template, else None.

        Such families take one question at a time: the last message counts, its images come first.
        """
        if self.chat or not messages:
            return None
        last = messages[-1]
        images = sum(isinstance(part, ImageRef) for part in last.parts)
        return self.image_placeholder * images + last.text

    def parse(self, text: str, frames: Sequence[Frame], *, asked: bool) -> Grounding:
        """Read ``text`` as this family writes it; boxes come back in 0..1 of the original images."""
        return parse(text, self.format, frames=frames, asked=asked)
