"""``run_parquet``: images named in Parquet files in, the same rows with their answers out, in any number.

The input is cut into stretches, and each gives one part of the output; nothing else is held. With the ``ray``
engine Ray Data spreads the stretches over the cluster; with any other they are answered here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..asking import Job
from ..errors import ModelUnloaded, OptionError, SourceNotFound
from .counts import Counts
from .identity import Answerer, Keys, model_identity
from .jsonl import check_apart
from .options import RunOptions
from .parts import ENDINGS, Stretch, StretchWork, arrow
from .progress import Progress

NOTE = "_vlm_nb.json"
ROWS = 256
"""Rows of a stretch: what is lost at most when a process dies, and what one process has at a time."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns hold images and prompts, and what the answer's shall be called."""

    image: str
    prompts: str | None
    name: str


def run_parquet(
    answerer: Answerer,
    source: str | os.PathLike[str],
    template: Job,
    columns: Columns,
    *,
    output: str | os.PathLike[str],
    rows: int = ROWS,
    **options: Any,
) -> Counts:
    """Answer the rows of Parquet files into the folder ``output``; return how many there were, and failed.

    Raises OptionError, SourceNotFound, MissingDependency; what is wrong with a row stays in the row.
    """
    checked = RunOptions.checked(options)
    if answerer.engine.closed:
        raise ModelUnloaded("this model was unloaded; load it again with %vlm load or vlm_nb.load(...).")
    if not isinstance(rows, int) or rows < 1:
        raise OptionError(f"rows={rows!r}: expected a whole number from 1.")
    stretches = list(cut(Path(source).expanduser(), columns, rows))
    folder = Path(output).expanduser().absolute()
    check_apart(Path(source).expanduser(), folder)
    _claim(folder, _asked(answerer, template, columns))
    counts = Counts()
    left = [stretch for stretch in stretches if not _known(stretch, folder, counts)]
    work = StretchWork(
        asker=answerer.asker,
        spec=dataclasses.replace(answerer.spec, token=None, api_key=None, quantization_skips=None),
        template=template,
        image=columns.image,
        prompts=columns.prompts,
        name=columns.name,
        folder=str(Path.cwd()),
        output=str(folder),
        run=_run_options(checked),
    )
    total = sum(stretch.rows for stretch in stretches)
    with contextlib.closing(_done(answerer, work, left)) as done:
        _follow(done, counts, Progress(total) if checked.progress else None)
    return counts


def _follow(done: Iterator[Mapping[str, Any]], counts: Counts, progress: Progress | None) -> None:
    """Count what is done; leaving early ends what is under way."""
    counts.stopped = True
    try:
        for one in done:
            counts.rows += one["rows"]
            counts.hits += one["hits"]
            counts.failed += one["failed"]
            if progress:
                progress.show(counts)
        counts.stopped = False
    finally:
        if progress:
            progress.close(counts)


def _done(
    answerer: Answerer, work: StretchWork, left: list[Stretch]
) -> Generator[dict[str, Any], None, None]:
    """Answer the stretches, in any order: on the cluster where the engine has one."""
    items = [dataclasses.asdict(stretch) for stretch in left]
    spread = getattr(answerer.engine.backend, "spread", None)
    if not items:
        return
    if spread is None:
        yield from (work(answerer.engine, item) for item in items)
    else:  # the ledger is this process's alone, and the parts hold all that it would
        yield from spread(answerer.engine, dataclasses.replace(work, run={"ledger": False}), items)


def _run_options(checked: RunOptions) -> dict[str, Any]:
    given = {name: getattr(checked, name) for name in ("ledger", "verify", "reuse_sampled")}
    return {name: value for name, value in given.items() if value is not None}


# The input --------------------------------------------------------------------------------------------------


def cut(source: Path, columns: Columns, rows: int) -> Iterator[Stretch]:
    """Yield the stretches of a Parquet file, or of a folder's or a glob's files in sorted order.

    Raises SourceNotFound, and OptionError for a file without the columns or with one called like the answer.
    """
    for file, label in _files(source):
        reader = _reader(file)
        _check(file, reader.schema_arrow.names, columns)
        stat = file.stat()
        for group in range(reader.num_row_groups):
            count = reader.metadata.row_group(group).num_rows
            for start in range(0, count, rows):
                yield Stretch(
                    file=str(file),
                    source=(stat.st_size, stat.st_mtime_ns),
                    group=group,
                    start=start,
                    rows=min(rows, count - start),
                    part=f"{label}-{group:05d}-{start:08d}.parquet",
                )


def _files(source: Path) -> list[tuple[Path, str]]:
    """The files, absolute, each with a name of its own for its parts."""
    base, found = source, sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    if not source.is_dir():
        base = source.parent
        found = found if source.is_file() else sorted(base.glob(source.name))
    found = [file for file in found if file.is_file() and not file.name.startswith((".", "_"))]
    if not found:
        raise SourceNotFound(f"no Parquet file: {source}", source=str(source))
    names = [file.relative_to(base).with_suffix("").as_posix().replace("/", "__") for file in found]
    return list(zip((file.absolute() for file in found), names, strict=True))


def _reader(file: Path) -> Any:
    pa = arrow()
    try:
        return pa.parquet.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise OptionError(f"{file} is no Parquet file that can be read ({error}).") from None


def _check(file: Path, names: list[str], columns: Columns) -> None:
    for wanted in filter(None, (columns.image, columns.prompts)):
        if wanted not in names:
            raise OptionError(f"{file.name} has no column {wanted!r}; it has: {', '.join(names)}.")
    taken = [name for end in ENDINGS.values() if (name := f"{columns.name}{end}") in names]
    if taken:
        raise OptionError(f'{file.name} has a column {taken[0]!r} already; give name="another".')


# The output -------------------------------------------------------------------------------------------------


def _asked(answerer: Answerer, template: Job, columns: Columns) -> str:
    """What was asked of whom, as a digest: parts of another question must not be taken for this one's."""
    identity = model_identity(answerer) or {"model": answerer.asker.label}
    key = Keys(identity).key(template, [columns.image, columns.prompts or "", columns.name])
    return hashlib.sha256(key).hexdigest()


def _claim(output: Path, asked: str) -> None:
    """Make the output folder, or check that it is this run's. Raises OptionError."""
    if output.exists() and not output.is_dir():
        raise OptionError(f"output={str(output)!r} is a file; run_parquet writes a folder of parts.")
    output.mkdir(parents=True, exist_ok=True)
    note = output / NOTE
    if note.exists():
        if json.loads(note.read_text(encoding="utf-8")).get("asked") != asked:
            raise OptionError(
                f"{output} holds answers to another question, or of another model or settings; give output= "
                "another name."
            )
    elif any(output.glob("*.parquet")):
        raise OptionError(f"{output} holds Parquet files that are not vlm_nb's; give output= another name.")
    else:
        note.write_text(json.dumps({"asked": asked}), encoding="utf-8")


def _known(stretch: Stretch, output: Path, counts: Counts) -> bool:
    """Whether the output has all of a stretch; if so it is counted."""
    if stretch.left(output):
        return False
    counts.rows += stretch.rows
    counts.hits += stretch.rows
    return True
