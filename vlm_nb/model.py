"""``VLM``: the one facade over a loaded model."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import batch, conversations, sources
from .asking import Asker, Job, Prepared, Task, checked_text, drain, images_of, together
from .batch import end_cell, in_ipython
from .engines.base import Engine, Ticket, wait_cancelled
from .engines.spec import LoadSpec
from .errors import OptionError, PromptError, VLMError
from .request import Completion, GenerationConfig, Usage, settings_of
from .results import Outcome, Prediction
from .schema import as_schema

if TYPE_CHECKING:
    from .batch import Counts
    from .chat import Chat
    from .comparing import Comparison
    from .engines.base import ModelInfo
    from .families.base import Family

DEMO = "demo"
LEFT_OUT: Any = ...
"""The image of a call that names none: a question in text only."""
OTHER_NAMES = frozenset({"image", "images", "prompt", "question", "phrase"})
"""What other tools call the image and the question."""
Sources = Any
"""A path, folder, glob, URL, bytes, data URI, PIL image, array or tensor, or a list of those."""


class VLM:
    """A loaded vision-language model. Made by ``vlm_nb.load``; never by hand.

    Single calls (``caption``, ``ask``, ``ground``) return a ``Prediction`` and raise on error; the call
    itself (``model(source=…)``) returns ``Outcome(result, error)`` pairs and raises for nothing in an input.
    """

    def __init__(self, spec: LoadSpec, engine: Engine, info: ModelInfo, family: Family) -> None:
        self.spec = spec
        self.engine = engine
        self.info = info
        self.family = family
        self.asker = Asker(
            family,
            info,
            engine.capabilities,
            spec.model,
            is_demo=spec.model == DEMO,
            max_pixels=spec.max_pixels,
            min_pixels=spec.min_pixels,
        )

    @property
    def name(self) -> str:
        """The name it was loaded by."""
        return self.spec.model

    @property
    def is_demo(self) -> bool:
        """Whether this is the shipped demo model, which knows drawn scenes only."""
        return self.asker.is_demo

    def __repr__(self) -> str:
        how = ", ".join(f"{key}={value!r}" for key, value in sorted(self.spec.changed().items()) if value)
        state = "unloaded" if self.engine.closed else f"on {self.info.device}"
        return f"<VLM {self.name!r} {state}{', ' + how if how else ''}>"

    # One image ----------------------------------------------------------------------------------------------

    def caption(self, source: Sources, **options: Any) -> Prediction:
        """Describe one image. Keywords are generation settings and ``system``; raises a VLMError."""
        return self._answer(self.job(source, None, "caption", **options))

    def ask(self, source: Sources, question: str, **options: Any) -> Prediction:
        """Answer ``question`` about one image (or a list of images together); raises a VLMError."""
        return self._answer(self.job(source, question, "ask", **options))

    def ground(self, source: Sources, phrase: str | None = None, **options: Any) -> Prediction:
        """Find ``phrase``, or every object, in one image.

        Boxes are (x_min, y_min, x_max, y_max) in 0..1 of the upright original image. Raises a VLMError.
        """
        return self._answer(self.job(source, phrase, "locate" if phrase else "detect", **options))

    def extract(
        self, source: Sources, schema: Any, question: str | None = None, **options: Any
    ) -> Prediction:
        """Answer in the form of ``schema``; the typed value is the prediction's ``parsed``.

        ``schema`` is a pydantic model, dataclass, TypedDict, ``Literal``, JSON schema, compiled regex or list
        of choices; decoding is constrained to it. Without a ``question`` the schema itself is the question.
        Raises SchemaError for an unusable schema or an answer cut before its end, CapabilityError where the
        engine cannot constrain.
        """
        wanted = as_schema(schema)
        return self.ask(source, question or wanted.question, schema=wanted, **options)

    def stream(self, source: Sources, question: str, **options: Any) -> Generator[str, None, Prediction]:
        """Yield pieces of the answer's raw text; the generator's return value is the Prediction."""
        return self.stream_job(self.job(source, question, "ask", **options))

    def chat(self, source: Sources = None, *, system: str | None = None, **options: Any) -> Chat:
        """Start a conversation about ``source`` (an image, a list of images, or None for text only at first).

        ``options`` are generation settings for every turn. Raises a SourceError for an unreadable image,
        CapabilityError where the engine keeps no conversation.
        """
        from .chat import Chat

        return Chat(self, source, system=system, **options)

    # Many images --------------------------------------------------------------------------------------------

    def __call__(
        self,
        source: Sources = LEFT_OUT,
        user_prompt: str | Sequence[str | None] | None = None,
        *,
        generation_config: Mapping[str, Any] | None = None,
        recursive: bool = False,
        show_progress: bool | None = None,
        **options: Any,
    ) -> Any:
        """Answer ``user_prompt`` about one source or many; without a prompt, find every object.

        One image gives one ``Outcome(result, error)``; a list, folder or glob gives a list of them, aligned
        with the inputs: folders expand in sorted order, and an unreadable item is an error in its own place.
        ``user_prompt`` is one text, or one per expanded input; without a ``source`` it is text only.
        Finished rows of a list, folder or glob are kept in the ledger (``ledger=`` a file, or False) and in
        ``output="rows.jsonl"``; the same call again computes only what is missing. ``verify=True`` hashes
        every file again; ``reuse_sampled=True`` takes answers drawn at random from the ledger too. Raises
        OptionError and PromptError for the call itself (unknown keys, a wrong number of prompts), and
        ModelUnloaded.
        """
        how, settings = batch.split_options({**settings_of(generation_config), **options})
        alone = source is LEFT_OUT or sources.is_single(source)
        source = () if source is LEFT_OUT else source
        if alone and (user_prompt is None or isinstance(user_prompt, str)):
            return self._one_outcome(source, user_prompt, settings, how)
        make = batch.JobMaker(self.job, **settings)
        jobs, total = batch.jobs_of(source, user_prompt, make, recursive=recursive)
        return self.run(jobs, show_progress=show_progress, total=total, **how)

    def generate(
        self, requests: Iterable[Any], *, show_progress: bool | None = None, **options: Any
    ) -> list[Outcome]:
        """Answer requests in the forms of other tools, one ``Outcome`` each, in order.

        A request is ``(prompt, image)``, ``(prompt, [images])`` (``vlm_nb.IMAGE_TOKEN`` marks places), a list
        of OpenAI or transformers messages, ``{"messages": [...]}``, or a text. ``options`` are generation
        settings; raises OptionError for an unknown one. What is wrong with a request is its own error.
        """
        how, rest = batch.split_options(options)
        settings = self.generation(rest)
        if isinstance(requests, str | bytes | Mapping) or not isinstance(requests, Iterable):
            raise OptionError(f"{type(requests).__name__} is no list of requests; give [request, ...].")
        jobs = (self._conversation_job(given, settings) for given in requests)
        return self.run(jobs, show_progress=show_progress, **how)

    def compare(
        self,
        other: VLM,
        source: Sources,
        question: str | None = None,
        *,
        phrase: str | None = None,
        **options: Any,
    ) -> Comparison:
        """Ask this model and ``other`` the same about one image or many, and set the answers side by side.

        ``question`` is asked, or ``phrase`` is found; without both, every object. ``other`` must be loaded
        still (``vlm_nb.load(..., keep=True)``). ``options`` are those of ``model(...)``. What is wrong with
        an image is an error in its own row. Raises OptionError, PromptError and ModelUnloaded.
        """
        from .comparing import compare

        if question is not None and phrase is not None:
            raise OptionError("give a question or a phrase=, not both.")
        task: Task = "ask" if question is not None else "detect" if phrase is None else "locate"
        return compare(self, other, source, question if phrase is None else phrase, task, **options)

    def run_jsonl(
        self, input: str | Path, *, output: str | Path, show_progress: bool | None = None, **options: Any
    ) -> Counts:
        """Answer the conversations of a JSON Lines file; append each, with its answer, to ``output``.

        A line is ``{"messages": [...]}`` in OpenAI's or Oumi's form, or a line of an OpenAI batch file, whose
        ``max_tokens``, ``temperature``, ``top_p``, ``seed`` and ``stop`` count unless ``options`` set them.
        The same call again computes only what ``output`` and the ledger lack. Returns the numbers of rows,
        of those known already, and of failed ones. Raises SourceNotFound and OptionError.
        """
        how, rest = batch.split_options(options)
        self.generation(rest)

        def make(given: Mapping[str, Any], settings: Mapping[str, Any]) -> Job | VLMError:
            return self._conversation_job(given, self.generation({**settings, **rest}))

        return batch.run_jsonl(self, input, make, output=output, show_progress=show_progress, **how)

    def run_parquet(
        self,
        input: str | Path,
        *,
        output: str | Path,
        image: str = "image",
        question: str | None = None,
        questions: str | None = None,
        task: Task | None = None,
        name: str = "answer",
        show_progress: bool | None = None,
        **options: Any,
    ) -> Counts:
        """Answer the rows of Parquet files (a file, folder, glob), in any number, into the folder ``output``.

        ``image`` names the column of images (paths, URLs, bytes), ``questions`` one of questions where there
        is no one ``question`` for all; with ``task="locate"`` they are phrases; without, ``task`` is "detect"
        or "caption". A row keeps its columns and gets ``answer``, ``answer_error``, ``answer_boxes``, …
        (``name``). With ``engine="ray"`` Ray Data spreads the rows over the cluster. The same call again
        computes only what is missing or failed. ``options`` are generation settings, ``ledger`` and ``rows``
        (of a part, 256). Returns the numbers of rows, known ones and failed ones. Raises OptionError,
        PromptError and SourceNotFound.
        """
        how, rest = batch.split_options(options)
        if question is not None and questions is not None:
            raise OptionError("give one question= for all rows or a column of questions=, not both.")
        rows = {"rows": rest.pop("rows")} if "rows" in rest else {}
        kind: Task = task or ("ask" if question or questions else "detect")
        template = batch.JobMaker(self.job, kind, **rest).template(question if questions is None else "?")
        columns = batch.Columns(image=image, prompts=questions, name=name)
        how |= {"output": output, "show_progress": show_progress, **rows}
        return batch.run_parquet(self, input, template, columns, **how)

    def _conversation_job(self, given: Any, generation: GenerationConfig) -> Job | VLMError:
        try:
            talk = conversations.read(given)
            images = together(list(talk.images))
        except VLMError as error:
            return error
        return Job(
            sources=images,
            prompt=talk.turn.text,
            history=talk.history,
            turn=talk.turn,
            generation=generation,
            interactive=False,
        )

    def run(
        self, jobs: Iterable[Job | VLMError], *, show_progress: bool | None = None, **options: Any
    ) -> list[Outcome]:
        """Answer jobs, pulled as they are needed, in order; an error among them stays in its place.

        Options are those of ``batch.RunOptions``.
        """
        return batch.run(self, jobs, show_progress=show_progress, **options)

    def _one_outcome(
        self, source: Sources, prompt: str | None, settings: Mapping[str, Any], how: Mapping[str, Any]
    ) -> Outcome:
        job = None
        try:
            job = self.job(source, prompt, "ask" if prompt is not None else "detect", **settings)
            if how:  # a ledger or an output was named: as a list of one
                return self.run([job], show_progress=False, **how)[0]
            return Outcome(self._answer(job), None)
        except (OptionError, PromptError):
            raise
        except VLMError as error:
            error.source = error.source or (job.label if job else type(source).__name__)
            error.index = 0
            return Outcome(None, error)

    # Jobs ---------------------------------------------------------------------------------------------------

    def job(
        self,
        source: Sources,
        prompt: str | None,
        task: Task = "ask",
        /,
        *,
        system: str | None = None,
        schema: Any = None,
        generation_config: Mapping[str, Any] | None = None,
        **generation: Any,
    ) -> Job:
        """Build the job of one prompt. ``prompt`` is the question, or the phrase of a "locate" task.

        An empty list as ``source`` makes it text only. Raises OptionError for unknown generation keys,
        PromptError for an empty prompt, SourceError.
        """
        prompt, system = checked_text(prompt), checked_text(system, "system=")
        text = prompt if task == "ask" else self.family.prompt_for(task, prompt)
        if text is None or not text.strip() or (task == "locate" and not (prompt or "").strip()):
            raise PromptError("the prompt is empty; write a question, or use caption() or ground().")
        if wrong := sorted(OTHER_NAMES & generation.keys()):
            names = "the image comes first, then the text; model(...) has source= and user_prompt=."
            raise OptionError(f"unknown keyword {wrong[0]!r}: {names}")
        config = self.generation({**settings_of(generation_config), **generation})
        return Job(
            sources=images_of(source, prompt),
            prompt=text,
            task=task,
            phrase=prompt if task == "locate" else None,
            system=system,
            schema=None if schema is None else as_schema(schema),
            generation=config,
        )

    def generation(self, changes: Mapping[str, Any]) -> GenerationConfig:
        """The settings of a call: call > load > checkpoint > ours. Checkpoint sampling only if asked."""
        asked = {**self.spec.generation, **changes}
        config = GenerationConfig().updated(asked)
        if not config.sampling:
            return config
        known = self.info.generation_defaults
        inherit = {
            k: known[k]
            for k in ("temperature", "top_p", "top_k")
            if known.get(k) is not None and k not in asked
        }
        return config.updated(inherit)

    def _answer(self, job: Job) -> Prediction:
        return drain(self.stream_job(job))

    def stream_job(self, job: Job) -> Generator[str, None, Prediction]:
        """Yield pieces of a job's raw answer; return its Prediction. Ctrl+C in IPython keeps the rest."""
        prepared = self.asker.prepare(job)
        ticket = self.engine.submit(prepared.request)
        try:
            for event in ticket.events():
                if isinstance(event, str):
                    yield event
        except KeyboardInterrupt:
            wait_cancelled([ticket])
            if not in_ipython():
                raise
            end_cell("the answer was stopped")
        finally:
            ticket.cancel()
        return self.finish(job, prepared, ticket.completion or _partial(ticket))

    def finish(self, job: Job, prepared: Prepared, completion: Completion) -> Prediction:
        """Read a completion as the answer to ``job``, with a preview of its image. Raises a VLMError."""
        from .display import preview_jpeg

        try:
            prediction = self.asker.predict(job, prepared, completion)
        except VLMError as error:
            error.source, error.index = error.source or job.label, job.index
            raise
        preview = preview_jpeg(prepared.first) if prepared.first is not None else None
        return dataclasses.replace(prediction, preview=preview)

    # Life cycle ---------------------------------------------------------------------------------------------

    def unload(self) -> None:
        """Fail open requests, free the memory and end the engine's thread. Twice is fine."""
        self.engine.close()


def _partial(ticket: Ticket) -> Completion:
    return Completion(text=ticket.text, usage=Usage(finish_reason="cancelled", seconds=ticket.seconds))
