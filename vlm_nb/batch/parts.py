"""One stretch of a Parquet file: its rows read, answered, and written as a part of the output.

A part has the name of its stretch and appears all at once, so a stretch that is answered twice, because the
process that had it died, is there once.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..asking import Asker, Job, together
from ..engines.base import Engine
from ..errors import MissingDependency, OptionError, PromptError, SourceError, VLMError
from ..results import Outcome, json_safe

if TYPE_CHECKING:
    from ..engines.spec import LoadSpec

METADATA = b"vlm_nb"
INSTALL = "Parquet files need pyarrow:  pip install pyarrow"


def arrow() -> Any:
    """Return pyarrow with its Parquet reader. Raises MissingDependency."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingDependency(INSTALL) from None
    return pyarrow


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """``rows`` rows from ``start`` of a row group; ``source`` is the file's size and time in nanoseconds."""

    file: str
    source: tuple[int, int]
    group: int
    start: int
    rows: int
    part: str

    def left(self, folder: Path) -> int:
        """How many of its rows the output in ``folder`` lacks: all, those that failed, or none."""
        note = part_note(folder / self.part)
        same = note is not None and note["rows"] == self.rows and tuple(note["source"]) == self.source
        return int(note["failed"]) if note is not None and same else self.rows


def part_note(path: Path) -> dict[str, Any] | None:
    """What a part says about itself; None where there is none."""
    try:
        metadata = arrow().parquet.read_schema(path).metadata or {}
        note: dict[str, Any] = json.loads(metadata[METADATA])
    except (OSError, ValueError, KeyError):
        return None
    return note


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """What the runner needs of a model."""

    asker: Asker
    engine: Engine
    spec: LoadSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class StretchWork:
    """Answers a stretch with an engine, here or in a process elsewhere.

    ``template`` is the job without its image. ``image`` and ``prompts`` name columns; ``folder`` is where
    relative paths begin; ``name`` is the answer's column; ``run`` are the options of the run.
    """

    asker: Asker
    spec: LoadSpec
    template: Job
    image: str
    prompts: str | None
    name: str
    folder: str
    output: str
    run: Mapping[str, Any]

    def __call__(self, engine: Engine, item: dict[str, Any]) -> dict[str, Any]:
        """Answer what the part of the stretch lacks; return the numbers of rows and of failed ones."""
        stretch = Stretch(**{**item, "source": tuple(item["source"])})
        target = Path(self.output) / stretch.part
        table = _group(stretch.file, stretch.source, stretch.group).slice(stretch.start, stretch.rows)
        before = self._before(stretch, target)
        found = self._answer(engine, table, before)
        failed = sum(row["error"] is not None for row in found)
        note = {"rows": stretch.rows, "failed": failed, "source": stretch.source}
        _write(_joined(table, self.name, found, note), target)
        return {"rows": stretch.rows, "failed": failed, "hits": sum(row is not None for row in before)}

    def _before(self, stretch: Stretch, target: Path) -> list[dict[str, Any] | None]:
        """The answers that an earlier run left, None for each row that has none."""
        if stretch.left(Path(self.output)) == stretch.rows:
            return [None] * stretch.rows
        read = arrow().parquet.read_table(target, columns=[f"{self.name}{end}" for end in ENDINGS.values()])
        rows = [{key: row[f"{self.name}{end}"] for key, end in ENDINGS.items()} for row in read.to_pylist()]
        return [None if row["error"] is not None else row for row in rows]

    def _answer(
        self, engine: Engine, table: Any, before: list[dict[str, Any] | None]
    ) -> list[dict[str, Any]]:
        from . import run

        cells = table.column(self.image).to_pylist()
        prompts = table.column(self.prompts).to_pylist() if self.prompts else [None] * len(cells)
        asked = [i for i, cell in enumerate(cells) if before[i] is None and cell is not None]
        jobs = (self._job(cells[i], prompts[i]) for i in asked)
        answerer = Answering(asker=self.asker, engine=engine, spec=self.spec)
        outcomes = dict(zip(asked, run(answerer, jobs, show_progress=False, **self.run), strict=True))
        return [before[i] or _plain(outcomes.get(i)) for i in range(len(cells))]

    def _job(self, cell: Any, prompt: str | None) -> Job | VLMError:
        try:
            sources = together(self._placed(cell))
        except OptionError as error:
            return SourceError(str(error))
        except VLMError as error:
            return error
        job = dataclasses.replace(self.template, sources=sources)
        return job if self.prompts is None else self._asked(job, prompt)

    def _asked(self, job: Job, prompt: str | None) -> Job | VLMError:
        if prompt is None or not str(prompt).strip():
            return PromptError("the prompt is empty.", source=job.label)
        if job.task != "locate":
            return dataclasses.replace(job, prompt=str(prompt))
        text = self.asker.family.prompt_for("locate", str(prompt)) or ""
        return dataclasses.replace(job, prompt=text, phrase=str(prompt))

    def _placed(self, cell: Any) -> Any:
        """A cell as ``sources`` takes it; a relative path begins in the caller's folder."""
        if isinstance(cell, Mapping):  # an image of Hugging Face's datasets
            cell = cell.get("bytes") or cell.get("path")
        if not isinstance(cell, str) or "://" in cell or cell.startswith(("data:", "~")):
            return cell
        return os.path.join(self.folder, cell)


@functools.lru_cache(maxsize=1)
def _group(file: str, source: tuple[int, int], group: int) -> Any:
    """A row group; stretches of one follow each other. ``source`` is there to notice a file that changed."""
    return arrow().parquet.ParquetFile(file).read_row_group(group)


ENDINGS = {
    "answer": "",
    "error": "_error",
    "boxes": "_boxes",
    "grounding": "_grounding",
    "parsed": "_parsed",
    "width": "_width",
    "height": "_height",
    "ending": "_ending",
}
"""What is kept of an answer → the end of its column's name."""


def _plain(outcome: Outcome | None) -> dict[str, Any]:
    """An outcome as cells; nulls for a row without an image."""
    row = dict.fromkeys(ENDINGS)
    if outcome is None:
        return row
    result, error = outcome
    if error is not None:
        return {**row, "error": f"{type(error).__name__}: {error}"}
    assert result is not None  # noqa: S101 - the other half of the outcome
    width, height = result.image_size or (None, None)
    return {
        "answer": result.caption,
        "error": None,
        "boxes": [phrase.to_dict() for phrase in result.grounded_phrases],
        "grounding": result.grounding,
        "parsed": None if result.parsed is None else json.dumps(json_safe(result.parsed)),
        "width": width,
        "height": height,
        "ending": result.usage.finish_reason,
    }


def _joined(table: Any, name: str, rows: list[dict[str, Any]], note: dict[str, Any]) -> Any:
    pa = arrow()
    for key, kind in _kinds(pa).items():
        column = pa.array([row[key] for row in rows], type=kind)
        table = table.append_column(f"{name}{ENDINGS[key]}", column)
    return table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA: json.dumps(note)})


def _kinds(pa: Any) -> dict[str, Any]:
    """The columns' types; ``bbox`` is (x_min, y_min, x_max, y_max) in 0..1 of the upright original image."""
    numbers, text = pa.list_(pa.float64()), pa.string()
    box = {"phrase": text, "bbox": numbers, "point": numbers, "image_index": pa.int32()}
    boxes = pa.list_(pa.struct({**box, "confidence": pa.float64(), "source": text}))
    others = {"boxes": boxes, "width": pa.int32(), "height": pa.int32()}
    return {key: others.get(key, text) for key in ENDINGS}


def _write(table: Any, target: Path) -> None:
    """Write a part whole or not at all, whoever else is at it."""
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        arrow().parquet.write_table(table, beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
