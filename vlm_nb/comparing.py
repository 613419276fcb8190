"""Two models on the same images, side by side: answers, boxes, and how far they agree.

An agreement is no score against the truth: two models may agree and both be wrong.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import batch, extras, sources
from .asking import Job, Task
from .display.compared import comparison_html
from .errors import Cancelled, MissingDependency, ModelUnloaded, OptionError, VLMError
from .likeness import agreement, box_iou
from .results import Outcome, Prediction

if TYPE_CHECKING:
    from pandas import DataFrame

    from .model import VLM


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One image's two outcomes."""

    source: str | None
    left: Outcome
    right: Outcome

    @property
    def both(self) -> tuple[Prediction, Prediction] | None:
        """The two answers, None where one failed."""
        left, right = self.left.result, self.right.result
        return None if left is None or right is None else (left, right)

    @property
    def same_text(self) -> bool | None:
        """Whether the two wrote exactly the same; None where one failed."""
        return None if self.both is None else self.both[0].raw == self.both[1].raw

    @property
    def box_iou(self) -> float | None:
        """Mean IoU of the boxes, matched as ``match`` does; None where there are none, or one failed."""
        return None if self.both is None else box_iou(*(one.grounded_phrases for one in self.both))

    @property
    def agreement(self) -> float | None:
        """0..1 as ``agreement`` says; None where one failed."""
        return None if self.both is None else agreement(*self.both)


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """What ``model.compare`` returns: ``rows`` in the order of the images, ``names`` of the two models.

    Boxes are (x_min, y_min, x_max, y_max) in 0..1 of the upright original image.
    """

    names: tuple[str, str]
    prompt: str
    rows: tuple[ComparedRow, ...]

    @property
    def summary(self) -> dict[str, Any]:
        """Numbers of ``rows``, ``failed`` rows and ``same_text`` ones, and the means over the others."""
        ious = [row.box_iou for row in self.rows if row.box_iou is not None]
        agreements = [row.agreement for row in self.rows if row.agreement is not None]
        return {
            "rows": len(self.rows),
            "failed": len(self.rows) - len(agreements),
            "same_text": sum(row.same_text is True for row in self.rows),
            "box_iou": sum(ious) / len(ious) if ious else None,
            "agreement": sum(agreements) / len(agreements) if agreements else None,
        }

    def to_frame(self) -> DataFrame:
        """One row an image: both answers, boxes (lists of plain dicts), errors, and how far they agree.

        Raises MissingDependency without pandas.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingDependency(f"to_frame needs pandas: {extras.command('pandas')}") from None
        return pd.DataFrame([_cells(row) for row in self.rows])

    def __repr__(self) -> str:
        lines = [f"{self.names[0]} against {self.names[1]}: {summary_line(self.summary)}"]
        return "\n".join(lines + [_line(row) for row in self.rows[:20]])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        rows = [(row.source, row.left, row.right, _verdict(row)) for row in self.rows]
        html = comparison_html(self.names, self.prompt, rows, summary_line(self.summary))
        return {"text/plain": repr(self), "text/html": html}


def summary_line(summary: dict[str, Any]) -> str:
    """The summary in words."""
    answered = summary["rows"] - summary["failed"]
    parts = [f"{summary['same_text']} of {answered} answers are the same"]
    if summary["box_iou"] is not None:
        parts.append(f"mean box IoU {summary['box_iou']:.2f}")
    if summary["agreement"] is not None:
        parts.append(f"mean agreement {summary['agreement']:.2f}")
    if summary["failed"]:
        parts.append(f"{summary['failed']} failed")
    return "; ".join(parts)


def _verdict(row: ComparedRow) -> str:
    if row.agreement is None:
        return "failed"
    if row.same_text:
        return "the same"
    return f"agreement {row.agreement:.2f}" if row.box_iou is None else f"box IoU {row.box_iou:.2f}"


def _line(row: ComparedRow) -> str:
    from .display import visible
    from .display.text import boxes_phrase

    def told(outcome: Outcome) -> str:
        if outcome.result is None:
            return f"{type(outcome.error).__name__}: {outcome.error}"
        return outcome.result.caption or boxes_phrase(outcome.result)

    texts = [visible(text)[:200] for text in (row.source or "", told(row.left), told(row.right))]
    return f"  {texts[0]}  [{_verdict(row)}]\n    {texts[1]}\n    {texts[2]}"


def _cells(row: ComparedRow) -> dict[str, Any]:
    cells: dict[str, Any] = {"source": row.source}
    for side, (result, error) in (("left", row.left), ("right", row.right)):
        cells[f"{side}_answer"] = result.caption if result else None
        cells[f"{side}_boxes"] = [box.to_dict() for box in result.grounded_phrases] if result else None
        cells[f"{side}_error"] = f"{type(error).__name__}: {error}" if error else None
    return {**cells, "same_text": row.same_text, "box_iou": row.box_iou, "agreement": row.agreement}


def compare(
    left: VLM,
    right: VLM,
    source: Any,
    prompt: str | None,
    task: Task,
    *,
    recursive: bool = False,
    show_progress: bool | None = None,
    **options: Any,
) -> Comparison:
    """Ask both models; an unreadable image is an error in its own row, of both. See ``VLM.compare``."""
    if left is right:
        raise OptionError(f"{left!r} would be compared with itself; load another with keep=True.")
    if not hasattr(right, "engine"):
        raise OptionError(f"{right!r} is no loaded model; give what vlm_nb.load(..., keep=True) returned.")
    for model in (left, right):
        if model.engine.closed:
            raise ModelUnloaded(f"{model.name} is unloaded; load the second model with keep=True.")
    items = sources.expand(source, recursive=recursive)
    how, settings = batch.split_options(options)
    answers: list[list[Outcome]] = []
    for model in (left, right):
        if any(isinstance(outcome.error, Cancelled) for found in answers for outcome in found):
            answers.append(batch.with_cancelled({}, len(items)))  # Stop is for both
            break
        make = batch.JobMaker(model.job, task, **settings)
        make.template(prompt)  # what is wrong with the question fails before the first image
        jobs = [_placed(make(item, prompt), index) for index, item in enumerate(items)]
        answers.append(model.run(jobs, show_progress=show_progress, total=len(jobs), **how))
    rows = [ComparedRow(_source(one, other), one, other) for one, other in zip(*answers, strict=True)]
    return Comparison(_names(left, right), prompt or "", tuple(rows))


def _placed(job: Job | VLMError, index: int) -> Job | VLMError:
    return job if isinstance(job, VLMError) else dataclasses.replace(job, index=index)


def _source(*outcomes: Outcome) -> str | None:
    named = [outcome.result or outcome.error for outcome in outcomes]
    return next((one.source for one in named if one is not None and one.source), None)


def _names(left: VLM, right: VLM) -> tuple[str, str]:
    """The names of two models, with how they were loaded where the names are one."""
    if left.name != right.name:
        return left.name, right.name
    one, other = (f"{model.name} ({model.info.quantization or model.info.dtype})" for model in (left, right))
    return (one, other) if one != other else (f"{one}, 1", f"{other}, 2")
