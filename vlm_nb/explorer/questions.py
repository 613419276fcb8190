"""From the widget's questions to the model's: regions are cut out, boxes mapped back. On worker threads."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..asking import Job
from ..display import preview_jpeg
from ..results import Prediction
from . import images
from .album import Album
from .edits import to_whole
from .state import TASKS, Answer

if TYPE_CHECKING:
    from ..model import VLM


def job_of(model: VLM, answer: Answer, album: Album) -> Job:
    """The question of ``answer`` for ``model``, about its image or the region of it. Raises a VLMError."""
    index = answer.image or 0
    source: Any = album.source(index)
    if answer.region is not None:
        image = album.image(index).image
        source = image.crop(images.pixel_rect(answer.region, image.size))
    task: Any = TASKS[answer.task]
    if answer.task == "ground" and not answer.prompt:
        task = "detect"
    return model.job(source, answer.prompt or None, task)


def of_whole(prediction: Prediction, answer: Answer, album: Album) -> Prediction:
    """An answer about a region, in terms of the whole image."""
    if answer.region is None:
        return prediction
    loaded = album.image(answer.image or 0)
    width, height = loaded.image.size
    rect = images.pixel_rect(answer.region, loaded.image.size)
    cut = (rect[0] / width, rect[1] / height, rect[2] / width, rect[3] / height)
    return replace(
        prediction,
        grounded_phrases=tuple(to_whole(p, cut) for p in prediction.grounded_phrases),
        image_size=loaded.original_size,
        source=answer.label,
        preview=preview_jpeg(loaded.image),
    )


def drawn(answer: Answer, album: Album) -> Prediction:
    """The result that boxes drawn by hand belong to where no model was asked."""
    loaded = album.image(album.index)
    return Prediction(
        "",
        grounding="found",
        source=answer.label,
        image_size=loaded.original_size,
        preview=preview_jpeg(loaded.image),
    )
