"""``%vlm reproduce``: the plain Python that repeats the last answer."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import PromptError
from .answers import is_table
from .arguments import Call

if TYPE_CHECKING:
    from ..asking import Task
    from ..model import VLM


@dataclass(frozen=True, slots=True)
class Record:
    """What is needed to write the call down again; no image, no result."""

    model: str
    load: dict[str, Any]
    task: Task
    source: str
    kind: str
    questions: tuple[str, ...]
    options: dict[str, Any]
    recursive: bool


_last: Record | None = None


def remember(model: VLM, call: Call, task: Task) -> None:
    """Keep the last call, as text."""
    global _last
    options = dict(call.generation)
    if call.options.system is not None:
        options["system"] = call.options.system
    changed = model.spec.changed()
    generation = changed.pop("generation", None)
    if generation:
        changed["generation_config"] = generation
    _last = Record(
        model=model.name,
        load=changed,
        task=task,
        source=call.code,
        kind=_kind(call),
        questions=tuple(call.questions),
        options=options,
        recursive=call.options.recursive,
    )


def _kind(call: Call) -> str:
    from .. import sources

    if is_table(call.source):
        return "table"
    if call.options.together:
        return "together"
    return "single" if sources.is_single(call.source) else "many"


def code() -> str:
    """Return the Python of the last answer. Raises PromptError when there is none."""
    if _last is None:
        raise PromptError(
            "nothing to reproduce yet: ask something first, for example %vqa photo.jpg What is it?"
        )
    lines = ["import vlm_nb", "", _load_line(_last), *_BODIES[_last.kind](_last)]
    return "\n".join(lines)


def _load_line(record: Record) -> str:
    plain = {name: value for name, value in record.load.items() if _is_literal(value)}
    words = [repr(record.model), *_keywords(plain)]
    lost = sorted(set(record.load) - set(plain))
    note = f"  # and your own {', '.join(lost)}" if lost else ""
    return f"model = vlm_nb.load({', '.join(words)}){note}"


def _is_literal(value: Any) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError):
        return False


def _keywords(values: dict[str, Any]) -> list[str]:
    return [f"{name}={value!r}" for name, value in values.items()]


def _call(record: Record, source: str, question: str | None) -> str:
    """One single call."""
    name = {"ask": "ask", "caption": "caption", "locate": "ground"}[record.task]
    words = [source, *([question] if question else []), *_keywords(record.options)]
    return f"model.{name}({', '.join(words)})"


def _single(record: Record) -> list[str]:
    questions = [text for text in record.questions if text]
    if len(questions) > 1:
        loop = [f"    {text!r}," for text in questions]
        return [
            "questions = [",
            *loop,
            "]",
            f"result = [{_call(record, record.source, 'q')} for q in questions]",
        ]
    return [f"result = {_call(record, record.source, repr(questions[0]) if questions else None)}"]


def _together(record: Record) -> list[str]:
    items = f"images = vlm_nb.sources.expand({record.source}, recursive={record.recursive})"
    return ["import vlm_nb.sources", items, *_single_of(record, "images")]


def _single_of(record: Record, source: str) -> list[str]:
    import dataclasses

    return _single(dataclasses.replace(record, source=source))


def _many(record: Record) -> list[str]:
    questions = [text for text in record.questions if text]
    task = "detect" if record.task == "locate" and not questions else record.task
    words = ["image", "text", repr(task), *_keywords(record.options)]
    return [
        "import vlm_nb.sources",
        f"texts = {questions or [None]!r}",
        f"images = vlm_nb.sources.expand({record.source}, recursive={record.recursive})",
        "jobs = [",
        f"    image if isinstance(image, vlm_nb.VLMError) else model.job({', '.join(words)})",
        "    for image in images for text in texts",
        "]",
        "result = vlm_nb.to_frame(model.run(jobs))",
    ]


def _table(record: Record) -> list[str]:
    name = {"ask": "ask", "caption": "caption", "locate": "ground"}[record.task]
    words = [*[repr(text) for text in record.questions if text], "model=model", *_keywords(record.options)]
    return [f"result = {record.source}.vlm.{name}({', '.join(words)})"]


_BODIES = {"single": _single, "together": _together, "many": _many, "table": _table}
