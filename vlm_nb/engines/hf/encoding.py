"""From a request to the tensors of one row, through the checkpoint's own processor."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ...errors import CapabilityError, ContextTooLong, GenerationError, VLMError
from ...request import ImageRef, Message, Request, Size
from .failures import first_line
from .prepared import PreparedImages

if TYPE_CHECKING:
    from PIL.Image import Image


BORROWED_TRIES = 200
BORROWED_SECONDS = 0.005


@dataclass(slots=True)
class Encoded:
    """One request as the model takes it: ``inputs`` is a batch of one, on the CPU.

    ``seen_sizes`` is (width, height) of every image as the model sees it, in the order of ``Request.images``;
    None where the processor cuts images up. ``image_keys`` are hashes of the prepared pixels, as the prompt
    mentions the images, and of how the processor was told to treat them.
    """

    inputs: dict[str, torch.Tensor]
    prompt_tokens: int
    image_tokens: int | None
    seen_sizes: tuple[Size, ...] | None
    image_keys: tuple[str, ...] = ()
    nbytes: int = field(init=False)
    """Bytes of the tensors."""

    def __post_init__(self) -> None:
        self.nbytes = sum(tensor.nbytes for tensor in self.inputs.values())

    def pin(self) -> None:
        """Move the tensors to memory from which a GPU copies by itself."""
        self.inputs = {key: tensor.pin_memory() for key, tensor in self.inputs.items()}


class Encoder:
    """Renders messages and runs the processor.

    ``template`` is the chat template, None where there is none. With ``remember`` what the image processor
    makes is kept (``prepared.PreparedImages``), within the processor that was given.
    """

    def __init__(
        self,
        processor: Any,
        config: Any,
        template: str | None,
        context: int | None,
        *,
        remember: bool = False,
    ) -> None:
        self._processor = processor
        self._prepared = PreparedImages(processor.image_processor) if remember else None
        if self._prepared is not None:
            processor.image_processor = self._prepared
        self._tokenizer = processor.tokenizer
        self._template = template
        self._context = context
        self.image_token = _image_token(processor, config)
        self._call = inspect.signature(type(processor).__call__).parameters

    def forget(self) -> bool:
        """Give up images that are kept prepared; whether there were any."""
        held = self._prepared is not None and self._prepared.kept.bytes > 0
        if self._prepared is not None:
            self._prepared.forget()
        return held

    def encode(self, request: Request) -> Encoded:
        """Raises GenerationError, ContextTooLong or CapabilityError for a request that cannot be used."""
        order = _image_order(request)
        text = self.render(request)
        images = [request.images[index].convert("RGB") for index in order]
        keys = tuple(_image_key(image, request.processor_kwargs) for image in images)
        with self._prepared.knowing(images, keys) if self._prepared else contextlib.nullcontext():
            inputs = self._process(text, images, request)
        ids = inputs["input_ids"]
        count = int((ids == self.image_token).sum()) if self.image_token is not None else None
        seen = _by_image(_seen_sizes(inputs, self._processor.image_processor, len(images)), order, request)
        _check_sizes(request, inputs, seen)
        self._check_length(ids.shape[1], count, request)
        return Encoded(inputs, ids.shape[1], count, seen, keys)

    def render(self, request: Request) -> str:
        """The prompt as text, with a placeholder for each image.

        Raises CapabilityError without a template.
        """
        if request.prompt is not None:
            return request.prompt
        if self._template is None:
            raise CapabilityError(
                "this checkpoint has no chat template, so a conversation cannot be written for it; load it "
                "with chat_template=... (a template, or the path of one)."
            )
        going_on = request.messages[-1].role == "assistant"
        try:
            rendered = self._processor.apply_chat_template(
                [_as_dict(message) for message in request.messages],
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=not going_on,
                continue_final_message=going_on,
            )
        except Exception as error:  # noqa: BLE001 - templates and processors raise anything
            raise GenerationError(f"the chat template refused these messages: {first_line(error)}") from None
        return str(rendered)

    def _process(self, text: str, images: Sequence[Any], request: Request) -> dict[str, torch.Tensor]:
        options: dict[str, Any] = dict(request.processor_kwargs)
        bos = self._tokenizer.bos_token
        if request.prompt is None and bos and text.startswith(bos):
            options["add_special_tokens"] = False  # the template has written it already
        if images:
            options["images"] = list(images)
        try:
            out = self._call_processor(text, options)
        except VLMError:
            raise
        except Exception as error:  # noqa: BLE001 - templates and processors raise anything
            raise GenerationError(f"the processor refused this request: {first_line(error)}") from None
        return {key: value for key, value in out.items() if isinstance(value, torch.Tensor)}

    def _call_processor(self, text: str, options: dict[str, Any]) -> Mapping[str, Any]:
        """A tokenizer cannot change its padding while another thread uses it: that passes in a moment."""
        for _ in range(BORROWED_TRIES):
            try:
                out: Mapping[str, Any] = self._processor(text=[text], return_tensors="pt", **options)
            except RuntimeError as error:
                if "lready borrowed" not in str(error):
                    raise
                time.sleep(BORROWED_SECONDS)
            else:
                return out
        raise GenerationError("the tokenizer is in use by other threads all the time; ask again.")

    def _check_length(self, length: int, image_tokens: int | None, request: Request) -> None:
        if self._context is None or length < self._context:
            return
        share = f", {image_tokens} of them for {len(request.images)} image(s)" if image_tokens else ""
        raise ContextTooLong(
            f"the prompt has {length} tokens{share}, and this model's context holds {self._context} with the "
            "answer. Use a smaller max_pixels, fewer images or a shorter text."
        )


def _image_order(request: Request) -> list[int]:
    """Indices of the images in the order in which the prompt mentions them."""
    if request.prompt is not None:
        return list(range(len(request.images)))
    return [part.index for m in request.messages for part in m.parts if isinstance(part, ImageRef)]


def _image_key(image: Image, options: Mapping[str, Any]) -> str:
    digest = hashlib.blake2b(repr((image.size, sorted(options.items()))).encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.hexdigest()


def _as_dict(message: Message) -> dict[str, Any]:
    parts = [
        {"type": "image"} if isinstance(part, ImageRef) else {"type": "text", "text": part}
        for part in message.parts
    ]
    return {"role": message.role, "content": parts}


def _image_token(processor: Any, config: Any) -> int | None:
    for owner in (processor, config):
        for name in ("image_token_id", "image_token_index"):
            if isinstance(found := getattr(owner, name, None), int):
                return found
    return None


def _seen_sizes(inputs: Mapping[str, torch.Tensor], images: Any, count: int) -> list[Size] | None:
    """(width, height) of each image in the tensors, in prompt order; None where that cannot be told."""
    if not count:
        return []
    grid, patch = inputs.get("image_grid_thw"), getattr(images, "patch_size", None)
    if grid is not None and isinstance(patch, int):
        return [(w * patch, h * patch) for _, h, w in grid.tolist()]
    pixels, sizes = inputs.get("pixel_values"), inputs.get("image_sizes")
    if pixels is None or pixels.ndim != 4 or pixels.shape[0] != count:
        return None  # tiles, or packed patches: no single size
    if sizes is not None and sizes.shape[0] == count:
        return [(w, h) for h, w in sizes.tolist()]
    return [(pixels.shape[3], pixels.shape[2])] * count


def _by_image(sizes: list[Size] | None, order: list[int], request: Request) -> tuple[Size, ...] | None:
    if sizes is None or len(sizes) != len(order):
        return None
    by_index = dict(zip(order, sizes, strict=True))
    return tuple(by_index.get(index, image.size) for index, image in enumerate(request.images))


def _check_sizes(request: Request, inputs: Mapping[str, torch.Tensor], seen: tuple[Size, ...] | None) -> None:
    """Boxes are read against the prepared image; if the processor changed it, they would be off."""
    if "image_grid_thw" not in inputs or seen == request.input_sizes:
        return
    raise GenerationError(
        f"the processor made images of {seen} (width, height) from prepared ones of {request.input_sizes}; "
        "boxes would be in the wrong place. Load with the family's own image limits (max_pixels, min_pixels)."
    )
