"""One call of the accessor: its keywords, checked before the first row, and what it leaves in ``attrs``."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .. import registry
from ..asking import Task
from ..batch import RUN_KEYS, Counts, JobMaker, RunOptions
from ..errors import CapabilityError, OptionError
from ..request import GenerationConfig
from ..results import Prediction, json_safe
from ..schema import AnswerSchema, as_schema
from .guide import check_keywords

if TYPE_CHECKING:
    from ..model import VLM

Kind = Literal["text", "integer", "object"]
Take = Callable[[Prediction], Any]
_OWN = ("image", "name", "model", "on_error", "overwrite", "show_progress", *RUN_KEYS)
_OF_JOBS = ("system", "schema", "generation_config", *GenerationConfig.names())


@dataclass(frozen=True, slots=True)
class Column:
    """One new column: its name, what it holds, and how it is read from an answer."""

    name: str
    kind: Kind
    take: Take


def text_columns(name: str) -> list[Column]:
    """The column of a caption or an answer."""
    return [Column(name, "text", lambda answer: answer.caption)]


def box_columns(name: str) -> list[Column]:
    """The columns of a grounding. Boxes are (x_min, y_min, x_max, y_max) in 0..1 of the upright original."""
    status = "grounding" if name == "boxes" else f"{name}_grounding"
    return [
        Column(name, "object", lambda answer: [phrase.to_dict() for phrase in answer.grounded_phrases]),
        Column(status, "text", lambda answer: answer.grounding),
        Column("image_width", "integer", lambda answer: answer.image_size[0] if answer.image_size else None),
        Column("image_height", "integer", lambda answer: answer.image_size[1] if answer.image_size else None),
    ]


def schema_columns(name: str, schema: AnswerSchema) -> list[Column]:
    """One column for each property of a JSON object, else one of that name."""

    def taken(key: str) -> Take:
        return lambda answer: (json_safe(answer.parsed) or {}).get(key)

    if not schema.columns:
        return [Column(name, "object", lambda answer: json_safe(answer.parsed))]
    return [Column(key, "object", taken(key)) for key in schema.columns]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is asked of a table. ``prompt`` is a text, None, a Series or a function of the row."""

    task: Task
    name: str
    columns: list[Column]
    prompt: Any
    maker: JobMaker
    model: VLM
    image: Hashable | None = None
    on_error: Literal["column", "raise"] = "column"
    overwrite: bool = False
    run: RunOptions = field(default_factory=RunOptions)
    settings: Mapping[str, Any] = field(default_factory=dict)
    schema: AnswerSchema | None = None

    @property
    def error_column(self) -> str:
        """Where the failures go."""
        return f"{self.name}_error"

    @property
    def names(self) -> list[str]:
        """All columns of the call."""
        return [*(column.name for column in self.columns), self.error_column]

    def note(self, image: Hashable, counts: Counts) -> dict[str, Any]:
        """What ``attrs`` keeps of the call; JSON can hold it."""
        info = self.model.info
        prompt = self.prompt if self.prompt is None or isinstance(self.prompt, str) else "(one for each row)"
        return {
            "task": self.task,
            "columns": self.names,
            "image": json_safe(image),
            "prompt": prompt,
            "schema": self.schema.label if self.schema else None,
            "settings": {key: json_safe(value) for key, value in self.settings.items()},
            "model": {
                "name": self.model.name,
                "engine": self.model.engine.name,
                "revision": info.revision,
                "fingerprint": info.fingerprint,
                "dtype": info.dtype,
                "quantization": info.quantization,
            },
            "rows": counts.rows,
            "nulls": counts.nulls,
            "known": counts.hits,
            "failed": counts.failed,
            "runaway": counts.runaway,
        }


def make_call(task: Task, name: str, prompt: Any, options: Mapping[str, Any], *, schema: Any = None) -> Call:
    """Check the keywords and build the call.

    Raises NoModelLoaded naming the command that loads one, OptionError and PromptError for what is wrong with
    all rows, CapabilityError where the engine cannot constrain answers to ``schema``.
    """
    model = registry.current(options.get("model"))
    check_keywords(options, _OWN, _OF_JOBS)
    settings = {key: value for key, value in options.items() if key not in _OWN}
    wanted = None if schema is None else as_schema(schema)
    maker = JobMaker(model.job, task, **settings, **({} if wanted is None else {"schema": wanted}))
    if wanted is not None:
        _can_constrain(model)
    maker.template(prompt if prompt is None or isinstance(prompt, str) else "?")
    how = {key: options[key] for key in ("show_progress", *RUN_KEYS) if key in options}
    name = str(options.get("name") or name)
    columns = box_columns(name) if task in ("detect", "locate") else text_columns(name)
    return Call(
        task=task,
        name=name,
        columns=columns if wanted is None else schema_columns(name, wanted),
        prompt=prompt,
        maker=maker,
        model=model,
        image=options.get("image"),
        on_error=_on_error(options.get("on_error", "column")),
        overwrite=bool(options.get("overwrite", False)),
        run=RunOptions.checked(how),
        settings=settings,
        schema=wanted,
    )


def _can_constrain(model: VLM) -> None:
    if not model.engine.capabilities.schema:
        raise CapabilityError(f"the engine of {model.name} cannot constrain answers to a schema.")


def _on_error(given: Any) -> Literal["column", "raise"]:
    if given not in ("column", "raise"):
        raise OptionError(f'on_error={given!r}: expected "column" or "raise".')
    return "raise" if given == "raise" else "column"
