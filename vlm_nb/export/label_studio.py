"""Label Studio tasks with predictions: https://labelstud.io/guide/predictions ."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from ..request import Size
from ..results import GroundedPhrase
from .base import LabelledImage, Place, sizes_of, write_json


def to_label_studio(
    images: Iterable[LabelledImage], path: Place | None = None, *, prefix: str = ""
) -> list[dict[str, Any]]:
    """Return the tasks and write them to ``path``, with the labelling set-up beside it (``….config.xml``).

    ``prefix`` goes before each image's name (``"/data/local-files/?d="`` where Label Studio serves files).
    Boxes become rectangles, points key points; ``x``, ``y``, ``width`` and ``height`` are percent of the
    upright image. Captions and answers stand in ``data``; a row whose grounding failed has no prediction.
    """
    kept = [image for image in images if image.image is not None]
    sizes = {image.row: size for image, size in sizes_of([image for image in kept if image.labelled])}
    tasks = [_task(image, sizes.get(image.row), prefix) for image in kept]
    if path is not None:
        write_json(tasks, path)
        target = Path(path).expanduser()
        names = sorted({phrase.phrase for image in kept for phrase in image.phrases})
        target.with_name(f"{target.stem}.config.xml").write_text(labelling_config(names), encoding="utf-8")
    return tasks


def _task(image: LabelledImage, size: Size | None, prefix: str) -> dict[str, Any]:
    """One task; without a grounding, or an image that can be measured, it has no prediction."""
    data = {"image": prefix + image.name, "row": image.row, **image.texts}
    if size is None:
        return {"data": data, "predictions": []}
    results = [_result(number, phrase, size) for number, phrase in enumerate(image.phrases)]
    scores = [phrase.confidence for phrase in image.phrases if phrase.confidence is not None]
    prediction: dict[str, Any] = {"model_version": "vlm_nb", "result": results}
    if scores:
        prediction["score"] = sum(scores) / len(scores)
    return {"data": data, "predictions": [prediction]}


def _result(number: int, phrase: GroundedPhrase, size: Size) -> dict[str, Any]:
    x_min, y_min, x_max, y_max = (100 * value for value in phrase.bbox)
    kind = "rectangle" if phrase.point is None else "keypoint"
    place = {"x": x_min, "y": y_min, "width": x_max - x_min, "height": y_max - y_min, "rotation": 0}
    if phrase.point is not None:
        place = {"x": 100 * phrase.point[0], "y": 100 * phrase.point[1], "width": 1}
    return {
        "id": f"box{number}",
        "type": f"{kind}labels",
        "from_name": kind,
        "to_name": "image",
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
        "value": {**place, f"{kind}labels": [phrase.phrase]},
    }


def labelling_config(names: Iterable[str]) -> str:
    """The set-up of a project that shows such tasks."""
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in names)
    return (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <RectangleLabels name="rectangle" toName="image">\n{labels}  </RectangleLabels>\n'
        f'  <KeyPointLabels name="keypoint" toName="image">\n{labels}  </KeyPointLabels>\n</View>\n'
    )
