"""``df.vlm``: ask a model about every image of a table. Holds nothing: pandas builds one for each access."""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..errors import OptionError
from .call import Call, make_call
from .columns import image_column
from .guide import Guided
from .merge import check_clash, noted, with_answers, with_retried
from .questions import prompt_of
from .table import NO_IMAGE, answer_rows

if TYPE_CHECKING:
    from .estimate import Estimate
    from .show import Gallery

Place = str | os.PathLike[str]


class FrameAccessor(Guided):
    """Images of a DataFrame's column, answered in batches.

    Calls return a new frame with the same index, the original columns, and new ones; ``attrs["vlm"]`` says
    how they were made. Finished rows are kept in the ledger: the same call again computes only what is
    missing. Keywords of all calls: ``image`` (the column of paths, URLs, bytes, PIL images, arrays, data URIs
    or Hugging Face image dicts; found by itself where that is clear), ``name`` of the new columns, ``model``,
    ``on_error`` ("column": the error's text in a column; "raise": the first failure raises), ``overwrite``,
    ``show_progress``, ``ledger``, ``output``, ``verify``, ``reuse_sampled``, ``system``, and generation
    settings. A null image gives a null answer. Raises NoModelLoaded, and OptionError for what is wrong with
    the call.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def _about(self) -> str:
        try:
            images = f"images in {image_column(self._frame, self._image(None)).name!r}"
        except OptionError as error:
            images = error.message
        return f"df.vlm: {len(self._frame):,} rows; {images}"

    def caption(self, **options: Any) -> pd.DataFrame:
        """Describe each image: columns ``caption`` and ``caption_error``."""
        return self._answered(make_call("caption", "caption", None, options))

    def ask(self, question: Any, **options: Any) -> pd.DataFrame:
        """Answer ``question`` about each image: columns ``answer`` and ``answer_error``.

        ``question`` is a text, a Series aligned by index, or a function of the row.
        """
        _required(question, 'ask("What is shown?")')
        return self._answered(make_call("ask", "answer", question, options))

    def ground(self, phrase: Any = None, **options: Any) -> pd.DataFrame:
        """Find ``phrase`` (a text, Series or function of the row), or every object, in each image.

        Columns: ``boxes``, a list of dicts with ``phrase`` and ``bbox`` = (x_min, y_min, x_max, y_max) in
        0..1 of the upright original image; ``grounding`` ("found", "none", "unparsed"); ``image_width`` and
        ``image_height`` in pixels; ``boxes_error``.
        """
        return self._answered(make_call("detect" if phrase is None else "locate", "boxes", phrase, options))

    def extract(self, schema: Any, question: Any = None, **options: Any) -> pd.DataFrame:
        """Read typed values from each image: one column for each field of ``schema``, and ``extract_error``.

        ``schema`` is a pydantic model, dataclass, JSON schema, regex or list of choices. Raises
        CapabilityError where the engine cannot constrain answers, MissingDependency where it lacks a package.
        """
        from ..schema import as_schema

        wanted = as_schema(schema)
        question = wanted.question if question is None else question
        return self._answered(make_call("ask", "extract", question, options, schema=wanted))

    def retry_failed(self, name: str | None = None, *, question: Any = None, **options: Any) -> pd.DataFrame:
        """Ask again about the rows that failed in an earlier call (the last, or the one called ``name``).

        Prompt and settings are the earlier call's; ``question`` is needed where it had one for each row.
        """
        from .again import earlier_call

        call = earlier_call(self._frame, name, question, options)
        images = image_column(self._frame, call.image)
        errors = self._frame[call.error_column]
        rows = [row for row, error in enumerate(errors) if not pd.isna(error) and error != NO_IMAGE]
        prompts = prompt_of(call.prompt, self._frame)
        answers = answer_rows(images.iloc[rows], lambda place: prompts(rows[place]), call)
        return with_retried(self._frame, call, answers, rows, images.name)

    def agreement(
        self,
        left: Hashable | None = None,
        right: Hashable | None = None,
        *,
        models: Any = None,
        question: Any = None,
        phrase: Any = None,
        name: str = "agreement",
        **options: Any,
    ) -> pd.DataFrame:
        """Rank the rows for a review: a new frame, the rows where two answers agree least first.

        ``left`` and ``right`` are two columns of answers or of boxes. With ``models`` (two loaded ones, or
        their names) both are asked ``question``, or find ``phrase`` or every object, first; their columns are
        ``left`` and ``right``. ``agreement`` is in 0..1: the mean IoU of boxes (greedily matched, a box
        without a partner counts 0), else how many words are the same; 0 where only one failed.
        """
        from .agreement import checked_models, ranked

        if models is None:
            return ranked(self._frame, left, right, name)
        frame, names = self._frame, (left or "left", right or "right")
        for model, column in zip(checked_models(models), names, strict=True):
            how = {**options, "model": model, "name": str(column)}
            ask = FrameAccessor(frame)
            frame = ask.ground(phrase, **how) if question is None else ask.ask(question, **how)
        return ranked(frame, *names, name)

    def estimate(self, question: Any = None, *, rows: int = 3, **options: Any) -> Estimate:
        """Measure ``rows`` rows and tell what the whole table will take; shows as a few lines.

        Without a ``question`` it is about captions. The measured rows are kept in the ledger.
        """
        from .estimate import estimate

        task: Any = "caption" if question is None else "ask"
        call = make_call(task, "estimate", question, options)
        images = image_column(self._frame, call.image)
        return estimate(images, prompt_of(question, self._frame), call, rows)

    def show(self, count: int = 12, *, image: Hashable | None = None, name: str | None = None) -> Gallery:
        """A gallery of the first ``count`` rows with their answers, boxes and errors."""
        from .show import Gallery, cards

        images = image_column(self._frame, self._image(image))
        return Gallery(cards(self._frame, images, count, name), len(self._frame))

    def boxes(self, name: str | None = None, *, pixels: bool = False) -> pd.DataFrame:
        """One row for each box, under the index of its image's row.

        Columns: ``phrase``, ``x_min``, ``y_min``, ``x_max``, ``y_max`` (floats in 0..1 of the upright
        original image, or with ``pixels=True`` whole pixels of it), ``confidence``, ``image_index``,
        ``image_width``, ``image_height``.
        """
        from .boxes import box_rows

        return box_rows(self._frame, name, pixels=pixels)

    # Hand-over ----------------------------------------------------------------------------------------------

    def to_coco(
        self, path: Place, *, name: str | None = None, image: Hashable | None = None
    ) -> dict[str, Any]:
        """Write the boxes as a COCO file and return its content (see ``vlm_nb.export.to_coco``)."""
        from .. import export

        return export.to_coco(self._labelled(name, image), path)

    def to_yolo(
        self, folder: Place, *, name: str | None = None, image: Hashable | None = None, **options: Any
    ) -> list[str]:
        """Write a YOLO dataset and return the class names (see ``vlm_nb.export.to_yolo``)."""
        from .. import export

        return export.to_yolo(self._labelled(name, image), folder, **options)

    def to_label_studio(
        self, path: Place, *, name: str | None = None, image: Hashable | None = None, **options: Any
    ) -> list[dict[str, Any]]:
        """Write Label Studio tasks with the boxes as predictions (see ``vlm_nb.export.to_label_studio``)."""
        from .. import export

        return export.to_label_studio(self._labelled(name, image, texts_do=True), path, **options)

    def to_supervision(self, *, name: str | None = None, image: Hashable | None = None) -> list[Any]:
        """One ``supervision.Detections`` for each row (see ``vlm_nb.export.to_supervision``)."""
        from .. import export

        return export.to_supervision(self._labelled(name, image))

    def to_jsonl(self, path: Place, *, name: str | None = None, image: Hashable | None = None) -> int:
        """Write one JSON object for each row and return how many (see ``vlm_nb.export.to_jsonl``)."""
        from .. import export

        return export.to_jsonl(self._labelled(name, image, texts_do=True), path)

    # Beneath ------------------------------------------------------------------------------------------------

    def _answered(self, call: Call) -> pd.DataFrame:
        images = image_column(self._frame, self._image(call.image))
        check_clash(self._frame, call)
        answers = answer_rows(images, prompt_of(call.prompt, self._frame), call)
        return with_answers(self._frame, call, answers, images.name)

    def _image(self, asked: Hashable | None) -> Hashable | None:
        """The image column: the one asked for, else that of the last call, where it is still there."""
        calls = list(noted(self._frame)["calls"].values())
        last = calls[-1]["image"] if calls else None
        return last if asked is None and isinstance(last, str) and last in self._frame.columns else asked

    def _labelled(self, name: str | None, image: Hashable | None, *, texts_do: bool = False) -> Any:
        from .boxes import labelled_images

        images = image_column(self._frame, self._image(image))
        return labelled_images(self._frame, images, name, texts_do=texts_do)


def _required(question: Any, example: str) -> None:
    if question is None:
        raise OptionError(f"ask needs a question: {example}.")
