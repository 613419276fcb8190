"""From a parsed magic to its value: one answer, several, a table of many images, or the accessor's frame."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import extras, registry
from ..errors import MissingDependency, NoModelLoaded, OptionError, PromptError, VLMError
from .arguments import Call
from .conversation import Conversation
from .loading import load_shown
from .streaming import Answers, ShownOnce, show

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ..asking import Job, Task
    from ..model import VLM
    from ..results import Outcome, Prediction
    from ..sources import Source


@dataclasses.dataclass(slots=True)
class Desk:
    """Where magics are answered: the shell, what it has shown, the conversation, the last call's record."""

    shell: InteractiveShell
    once: ShownOnce
    conversation: Conversation = dataclasses.field(default_factory=Conversation)
    last: Any = None


def answer(desk: Desk, call: Call, task: Task) -> tuple[VLM, Any]:
    """Answer a call and return the model that did, with the magic's value."""
    from .. import sources

    tasks = _tasks(call, task)
    if call.options.compare is not None:
        return _compared(call, tasks)
    if is_table(call.source):
        return _table(call, tasks)
    several = call.source is not None and not sources.is_single(call.source)
    if several and not call.options.together:
        return _many(call, tasks)
    images = _images(call)
    model = _single_model(desk, call)
    return model, _singles(desk, model, call, tasks, images)


def _images(call: Call) -> list[Source] | None:
    """The images of one prompt, all of which must be there. Raises the first SourceError."""
    from .. import sources

    if call.source is None:
        return None
    images: list[Source] = []
    for item in sources.expand(call.source, recursive=call.options.recursive):
        if isinstance(item, VLMError):
            raise sources.placed(item)
        images.append(item)
    if call.options.together and len(images) < 2:
        count = "one was" if images else "none was"
        raise OptionError(f"--together asks about several images in one prompt; {count} given.")
    return images


def _tasks(call: Call, task: Task) -> list[tuple[Task, str | None]]:
    """What to ask: (task, text) for each question."""
    from ..schema import as_schema

    if call.source is None and not call.options.chat:
        raise PromptError("no image given: write a file, folder, URL or variable first, then the question.")
    if call.schema is not None and not call.questions:
        return [("ask", as_schema(call.schema).question)]
    if task == "ask":
        if not any(text.strip() for text in call.questions):
            raise PromptError("the question is empty: write it after the image, or below in the cell.")
        return [("ask", text) for text in call.questions]
    if task == "locate":
        return [("locate", text) for text in call.questions if text] or [("detect", None)]
    return [(task, None)]


def is_table(value: Any) -> bool:
    """Whether ``value`` is a pandas DataFrame or Series; imports nothing."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series))


def _single_model(desk: Desk, call: Call) -> VLM:
    """The model of a single call; the demo model where none is loaded, said in a line."""
    name = call.options.model
    try:
        return registry.current(name)
    except NoModelLoaded:
        if name is not None:
            raise
    from .. import config

    wanted = config.settings().model
    what = "the demo model, which knows drawn scenes only" if wanted == "demo" else wanted
    print(f"No model is loaded; loading {what}. Another one:  %vlm load NAME")  # noqa: T201
    return load_shown(desk.shell, None)


def _singles(
    desk: Desk, model: VLM, call: Call, tasks: list[tuple[Task, str | None]], images: list[Source] | None
) -> Prediction | Answers:
    way = _chatting if call.options.chat else _asking
    ask = way(desk, model, call, images)
    if len(tasks) == 1:
        return ask(*tasks[0], False)
    answers = Answers()
    for task, text in tasks:
        answers.append(ask(task, text, bool(answers)))
        if answers[-1].usage.finish_reason == "cancelled":
            break
    desk.once.mark(answers, f"{len(answers)} answers")
    return answers


Ask = Callable[["Task", str | None, bool], "Prediction"]


def _asking(desk: Desk, model: VLM, call: Call, images: list[Source] | None) -> Ask:
    def ask(task: Task, text: str | None, again: bool) -> Prediction:
        job = _job(model, call, images, task, text)
        prediction = show(desk.shell, desk.once, model.stream_job(job), again=again)
        desk.conversation.note(model, job, prediction)
        return prediction

    return ask


def _chatting(desk: Desk, model: VLM, call: Call, images: list[Source] | None) -> Ask:
    joining = images
    chat = desk.conversation.chat(model, call.options.system, may_begin=joining is not None)

    def ask(task: Task, text: str | None, again: bool) -> Prediction:
        nonlocal joining
        question = text if task == "ask" else model.family.prompt_for(task, text)
        pieces = chat.stream(question or "", joining, schema=call.schema, **call.generation)
        joining = None
        return show(desk.shell, desk.once, pieces, again=again)

    return ask


def _job(model: VLM, call: Call, source: Any, task: Task, text: str | None) -> Job:
    return model.job(source, text, task, system=call.options.system, schema=call.schema, **call.generation)


def _many(call: Call, tasks: list[tuple[Task, str | None]]) -> tuple[VLM, Any]:
    """Separate answers about several images: a DataFrame with one row for each image and question."""
    from .. import frames, sources

    if importlib.util.find_spec("pandas") is None:
        raise MissingDependency(
            f"several images give a table, which needs pandas: {extras.command('pandas')}"
        )
    model = registry.current(call.options.model)
    items = sources.expand(call.source, recursive=call.options.recursive)
    if not items:
        raise PromptError("the list of images is empty.")
    if call.options.chat:
        raise OptionError("--chat is about one image, or several --together.")
    if len(items) == 1 and isinstance(items[0], VLMError):
        raise items[0]
    jobs = [_batch_job(model, call, item, task, text) for item in items for task, text in tasks]
    outcomes: list[Outcome] = model.run(
        [dataclasses.replace(j, index=i) if not isinstance(j, VLMError) else j for i, j in enumerate(jobs)]
    )
    return model, frames.to_frame(outcomes)


def _compared(call: Call, tasks: list[tuple[Task, str | None]]) -> tuple[VLM, Any]:
    """One question to two loaded models: a Comparison."""
    from .. import comparing

    options = call.options
    if options.together or options.chat or call.schema is not None or len(tasks) > 1:
        raise OptionError("--compare sets single answers to one question side by side.")
    if is_table(call.source):
        raise OptionError('a table is compared with df.vlm.agreement(question="…", models=("…", "…")).')
    model = registry.current(options.model)
    system = {} if options.system is None else {"system": options.system}
    task, text = tasks[0]
    other = registry.other_than(model, options.compare)
    settings = {**call.generation, **system}
    return model, comparing.compare(
        model, other, call.source, text, task, recursive=options.recursive, **settings
    )


def _batch_job(model: VLM, call: Call, item: Any, task: Task, text: str | None) -> Job | VLMError:
    if isinstance(item, VLMError):
        return item
    return dataclasses.replace(_job(model, call, item, task, text), interactive=False)


def _table(call: Call, tasks: list[tuple[Task, str | None]]) -> tuple[VLM, Any]:
    """A DataFrame or Series goes through the accessor, and its frame comes back."""
    if call.options.together or call.options.chat:
        raise OptionError("a table is answered row by row: --together and --chat are for images.")
    model = registry.current(call.options.model)
    options = {**call.generation, **({"system": call.options.system} if call.options.system else {})}
    frame = call.source
    if not hasattr(frame, "columns"):
        frame = frame.to_frame("image" if frame.name is None else frame.name)
    for number, (task, text) in enumerate(tasks):
        column = _COLUMN[task] if call.schema is None else "extract"
        more = {"name": f"{column}_{number + 1}"} if number else {}
        frame = _answered(frame, task, text, call.schema)(model=model, **options, **more)
    return model, frame


_COLUMN: dict[Task, str] = {"ask": "answer", "caption": "caption", "locate": "boxes", "detect": "boxes"}


def _answered(frame: Any, task: Task, text: str | None, schema: Any) -> Callable[..., Any]:
    """The accessor's method for a task, with its question."""
    if not hasattr(frame, "vlm"):
        raise MissingDependency("tables are answered through df.vlm, which is not there: %reload_ext vlm_nb")
    if schema is not None:
        return functools.partial(frame.vlm.extract, schema, text)
    if task == "caption":
        return frame.vlm.caption  # type: ignore[no-any-return]
    return functools.partial(frame.vlm.ask if task == "ask" else frame.vlm.ground, text)
