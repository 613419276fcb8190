"""``%vlm reproduce``: the plain Python that repeats the last answer."""

from __future__ import annotations

import ast
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import PromptError
from .answers import Desk, is_table
from .arguments import Call

if TYPE_CHECKING:
    from ..asking import Task
    from ..model import VLM


class _Code(str):
    """Python that is written down as it is."""

    def __repr__(self) -> str:
        return str(self)


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
    turns: tuple[tuple[str | None, str], ...] = ()
    other: str | None = None


def record(desk: Desk, model: VLM, call: Call, task: Task) -> Record:
    """Write the last call down, as text; a conversation's earlier turns come from ``desk.last``."""
    options = dict(call.generation)
    if call.schema is not None:
        options["schema"] = _Code(call.options.schema)
    if call.options.system is not None:
        options["system"] = call.options.system
    changed = model.spec.changed()
    generation = changed.pop("generation", None)
    if generation:
        changed["generation_config"] = generation
    return Record(
        model=model.name,
        load=changed,
        task=task,
        source=call.code,
        kind=_kind(call),
        questions=tuple(call.questions),
        options=options,
        recursive=call.options.recursive,
        turns=_turns(desk, model, call, task),
        other=call.options.compare,
    )


def _turns(desk: Desk, model: VLM, call: Call, task: Task) -> tuple[tuple[str | None, str], ...]:
    """(code of the images that join, prompt) of each turn of the conversation so far."""
    texts: list[str | None] = [text for text in call.questions if text]
    prompts = [_prompt(model, task, text) for text in texts or [None]]
    source = None if call.source is None else _images_code(call)
    goes_on = call.options.chat and not desk.conversation.begun and desk.last is not None
    before = desk.last.turns if goes_on else ()
    return (
        *before,
        *((source if place == 0 else None, prompt or "") for place, prompt in enumerate(prompts)),
    )


def _prompt(model: VLM, task: Task, text: str | None) -> str | None:
    return text if task == "ask" else model.family.prompt_for(_task(task, text), text)


def _task(task: Task, text: str | None) -> Task:
    return "detect" if task == "locate" and not text else task


def _images_code(call: Call) -> str:
    if not call.options.together:
        return call.code
    return f"vlm_nb.sources.expand({call.code}, recursive={call.options.recursive})"


def _kind(call: Call) -> str:
    from .. import sources

    if call.options.compare is not None:
        return "compare"
    if call.options.chat:
        return "chat"
    if is_table(call.source):
        return "table"
    if call.options.together:
        return "together"
    return "single" if sources.is_single(call.source) else "many"


def code(last: Record | None) -> str:
    """Return the Python of the last answer. Raises PromptError when there is none."""
    if last is None:
        raise PromptError(
            "nothing to reproduce yet: ask something first, for example %vqa photo.jpg What is it?"
        )
    body = _BODIES[last.kind](last)
    imports = ["import vlm_nb", *(["import vlm_nb.sources"] if "vlm_nb.sources" in "".join(body) else [])]
    return "\n".join([*imports, "", _load_line(last), *body])


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
    if not questions and "schema" in record.options:
        options = dict(record.options)
        words = [record.source, repr(options.pop("schema")), *_keywords(options)]
        return [f"result = model.extract({', '.join(words)})"]
    return [f"result = {_call(record, record.source, repr(questions[0]) if questions else None)}"]


def _together(record: Record) -> list[str]:
    items = f"images = vlm_nb.sources.expand({record.source}, recursive={record.recursive})"
    return [items, *_single(dataclasses.replace(record, source="images"))]


def _chat(record: Record) -> list[str]:
    options = dict(record.options)
    system = options.pop("system", None)
    lines = ["chat = model.chat(" + ("" if system is None else f"system={system!r}") + ")"]
    for source, prompt in record.turns:
        words = [repr(prompt), *([source] if source else []), *_keywords(options)]
        lines.append(f"result = chat.ask({', '.join(words)})")
    return lines


def _many(record: Record) -> list[str]:
    questions = [text for text in record.questions if text]
    task = _task(record.task, questions[0] if questions else None)
    words = ["image", "text", repr(task), *_keywords(record.options)]
    return [
        f"texts = {questions or [None]!r}",
        f"images = vlm_nb.sources.expand({record.source}, recursive={record.recursive})",
        "jobs = [",
        f"    image if isinstance(image, vlm_nb.VLMError) else model.job({', '.join(words)})",
        "    for image in images for text in texts",
        "]",
        "result = vlm_nb.to_frame(model.run(jobs))",
    ]


def _table(record: Record) -> list[str]:
    name, column = {"ask": ("ask", "answer"), "caption": ("caption", "caption")}.get(
        record.task, ("ground", "boxes")
    )
    lines = [f"result = {record.source}"]
    for number, text in enumerate([text for text in record.questions if text] or [None]):
        words = [] if text is None else [repr(text)]
        words += ["model=model", *_keywords(record.options)]
        words += [f"name='{column}_{number + 1}'"] if number else []
        lines.append(f"result = result.vlm.{name}({', '.join(words)})")
    return lines


def _compare(record: Record) -> list[str]:
    text = next((text for text in record.questions if text), None)
    question = "phrase" if record.task == "locate" else "question"
    asked = {} if text is None else {question: text}
    more = {"recursive": True} if record.recursive else {}
    words = ["other", record.source, *_keywords({**asked, **record.options, **more})]
    load = f"other = vlm_nb.load({record.other!r}, keep=True)  # as it was loaded"
    return [load, f"result = model.compare({', '.join(words)})"]


_BODIES = {
    "single": _single,
    "together": _together,
    "many": _many,
    "chat": _chat,
    "table": _table,
    "compare": _compare,
}
