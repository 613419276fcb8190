"""The ``openai`` engine: every server with OpenAI's chat interface, on this machine or elsewhere.

    model = vlm_nb.load("Qwen/Qwen2.5-VL-7B-Instruct", engine="openai", base_url="http://127.0.0.1:8000/v1")
    model = vlm_nb.load("gpt-4o-mini", engine="openai", base_url="openai")       # key from OPENAI_API_KEY

The engine's thread runs an event loop of its own, at most ``POLL_SECONDS`` a step. Each request is a task in
it, and a cancelled task closes its HTTP stream. ``remote/`` holds what can be tested without a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import GenerationError, ServerError, VLMError
from ..request import Completion, Request, Usage
from .base import POLL_SECONDS, Capabilities, ModelInfo, Progress, Ticket, as_vlm_error, raise_if_cancelled
from .remote import wire
from .remote.client import Client, list_models
from .remote.concurrency import AdaptiveConcurrency
from .remote.failures import Failure, Unreadable, message_of, withheld
from .remote.listing import ServedModel, chosen, fetch, info_of
from .remote.options import check
from .remote.presets import PRESETS, endpoint, vertex
from .runaway import LoopWatch
from .spec import LoadSpec

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PRESETS", "OpenAIBackend", "list_models", "vertex"]

T = TypeVar("T")
LONGEST_WAIT = 120.0
"""Seconds of ``Retry-After`` that are waited for; a server that asks for more gets no second try."""
LONGEST_BACKOFF = 30.0
"""Seconds between two tries where the server asks for nothing."""
ENCODERS = 2


class OpenAIBackend:
    """Sends requests to a server, as many at once as it bears.

    ``spec``: ``base_url``, ``api_key``, ``max_concurrency`` (50), ``error_threshold`` (0.01),
    ``adjust_every`` (5 s), ``image_quality`` (None: lossless PNG), ``allow_local_paths`` (images go as files
    in a folder that the server may read). ``engine_args``: ``timeout`` seconds without a byte (300),
    ``retries`` (4), ``backoff`` seconds before the first (0.5), ``server`` (its kind, else found out),
    ``extra_body``, ``default_headers``, ``default_query``, ``logprobs``, ``media_folder``.
    """

    def __init__(self, spec: LoadSpec) -> None:
        check(spec)
        self._spec = spec
        self._args = dict(spec.engine_args)
        self._where = endpoint(spec.base_url, spec.api_key)
        self._control = AdaptiveConcurrency(
            50 if spec.max_concurrency is None else spec.max_concurrency,
            0.01 if spec.error_threshold is None else spec.error_threshold,
            5.0 if spec.adjust_every is None else spec.adjust_every,
        )
        self._client = Client(self._where, self._args)
        self._server = str(self._args.get("server", "openai"))
        self._offered: list[ServedModel] = []
        self._info: ModelInfo | None = None
        self._names = dict(wire.NAMES)
        self._tasks: dict[Ticket, asyncio.Task[None]] = {}
        self._open_requests = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._encoders = ThreadPoolExecutor(ENCODERS, thread_name_prefix="vlm_nb-encode")
        self.capabilities = self._abilities()

    def _abilities(self) -> Capabilities:
        schema = wire.DIALECTS[self._server].schema
        return Capabilities(schema=schema, confidence=bool(self._args.get("logprobs")), in_flight=True)

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Nothing to set up: the loop is made by ``open``."""
        return contextlib.nullcontext()

    def prepare(
        self, progress: Callable[[Progress], None], cancelled: threading.Event, room: Mapping[str, int]
    ) -> None:
        """Ask the server for its models. Raises LoadError where it cannot be asked or lacks the model."""
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(self._encoders)
        progress(Progress(text=f"asking {self._where.url} for its models"))
        self._offered = self._waited(fetch(self._client), cancelled)
        served, self._server = chosen(self._spec.model, self._offered, self._args.get("server"))
        self.capabilities = self._abilities()
        self._info = info_of(self._spec, self._where.url, served, self._server)

    def open(self, progress: Callable[[Progress], None], cancelled: threading.Event) -> ModelInfo:
        """Nothing is loaded: return what the server told. Raises as ``prepare`` does."""
        if self._info is None:
            self.prepare(progress, cancelled, {})
        assert self._info is not None  # noqa: S101 - just made
        return self._info

    def _waited(self, work: Coroutine[Any, Any, T], cancelled: threading.Event) -> T:
        assert self._loop is not None  # noqa: S101 - open() made it
        task = self._loop.create_task(work)
        try:
            while not task.done():
                raise_if_cancelled(cancelled)
                self._loop.run_until_complete(asyncio.wait([task], timeout=POLL_SECONDS))
        finally:
            self._end([task])
        return task.result()

    # The engine's loop --------------------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        """The most requests that may be open at once."""
        return self._control.maximum

    @property
    def limit(self) -> int:
        """How many may be open at present."""
        return self._control.limit

    @property
    def running(self) -> Collection[Ticket]:
        """The tickets that were sent, or wait for another try."""
        return list(self._tasks)

    def free_slots(self) -> int:
        """Places under the present limit."""
        return max(0, self._control.allowed(time.monotonic()) - len(self._tasks))

    def admit(self, tickets: list[Ticket]) -> None:
        """Start a task for each ticket."""
        assert self._loop is not None  # noqa: S101 - the model is open
        for ticket in tickets:
            self._tasks[ticket] = self._loop.create_task(self._answer(ticket))

    def step(self) -> None:
        """Let the tasks run until one ends, at most ``POLL_SECONDS``."""
        assert self._loop is not None  # noqa: S101 - the model is open
        self._loop.run_until_complete(
            asyncio.wait(self._tasks.values(), timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        )
        self._tasks = {ticket: task for ticket, task in self._tasks.items() if not task.done()}

    def drop(self, ticket: Ticket) -> None:
        """Close the ticket's HTTP stream."""
        task = self._tasks.pop(ticket, None)
        if task is not None:
            self._end([task])

    def close(self) -> None:
        """Close every stream, the client and the loop. Twice is fine."""
        loop, self._loop = self._loop, None
        self._encoders.shutdown(wait=False, cancel_futures=True)
        if loop is not None:
            self._loop = loop
            self._end(list(self._tasks.values()))
            self._tasks.clear()
            loop.run_until_complete(self._client.api.close())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            self._loop = None

    def _end(self, tasks: list[asyncio.Task[Any]]) -> None:
        open_ = [task for task in tasks if not task.done()]
        for task in open_:
            task.cancel()
        if open_ and self._loop is not None:
            self._loop.run_until_complete(asyncio.wait(open_, timeout=1.0))

    # One request --------------------------------------------------------------------------------------------

    async def _answer(self, ticket: Ticket) -> None:
        try:
            error = await self._try_all(ticket, await self._keywords(ticket.request))
        except Exception as unexpected:  # noqa: BLE001 - it belongs to this row only
            error = as_vlm_error(unexpected)
        if error is not None:
            ticket.fail(error)

    async def _keywords(self, request: Request) -> dict[str, Any]:
        """The keywords of ``create``; images are encoded in other threads."""
        assert self._loop is not None  # noqa: S101 - the model is open
        sent = wire.settings(request, self._server)
        sent["stream_options"] = {"include_usage": True}
        render = functools.partial(wire.chat_messages, request, self._image_url)
        sent["messages"] = await self._loop.run_in_executor(self._encoders, render)
        if self._args.get("extra_body"):
            sent["extra_body"] = {**sent.get("extra_body", {}), **self._args["extra_body"]}
        if self._args.get("logprobs"):
            sent["logprobs"] = True
        return sent

    def _image_url(self, image: Image) -> str:
        if not self._spec.allow_local_paths:
            return wire.data_uri(image, self._spec.image_quality)
        folder = self._args.get("media_folder") or Path(tempfile.gettempdir()) / "vlm_nb-media"
        return wire.shared_file(image, self._spec.image_quality, Path(folder))

    async def _try_all(self, ticket: Ticket, keywords: dict[str, Any]) -> VLMError | None:
        """Try until there is an answer; return the error of the last try, None if there is one."""
        retries = int(self._args.get("retries", 4))
        for attempt in range(retries + 1):
            failure = await self._attempt(ticket, keywords)
            if failure is None:
                return None
            if not failure.transient or attempt == retries:
                return failure.error
            wait = self._wait(failure, attempt)
            if wait > LONGEST_WAIT:
                return ServerError(f"{failure.error.message} (it asks to wait {wait:.0f} s)")
            await asyncio.sleep(wait)
        return None

    def _wait(self, failure: Failure, attempt: int) -> float:
        asked = failure.retry_after or 0.0
        if 0 < asked <= LONGEST_WAIT:
            self._control.pause(time.monotonic(), asked)
        backoff = min(LONGEST_BACKOFF, float(self._args.get("backoff", 0.5)) * 2.0 ** min(attempt, 20))
        return max(asked, backoff * random.uniform(0.5, 1.0))

    async def _attempt(self, ticket: Ticket, keywords: dict[str, Any]) -> Failure | None:
        await self._turn()
        names = dict(self._names)
        self._open_requests += 1
        failure: Failure | None = None
        try:
            ticket.finish(await self._stream(ticket, wire.renamed(keywords, names)))
        except Exception as error:  # noqa: BLE001 - sorted out by failure_of
            failure = self._learnt(error, names) or self._client.failure(
                error, self._spec.model, self._offered
            )
        finally:
            opened, self._open_requests = self._open_requests, self._open_requests - 1
        overloaded = failure is not None and failure.overload
        self._control.record(time.monotonic(), overloaded=overloaded, open_requests=opened)
        return failure

    async def _turn(self) -> None:
        """Wait while the limit, which may have fallen since the ticket was admitted, is reached."""
        while self._open_requests >= self._control.allowed(time.monotonic()):
            await asyncio.sleep(min(1.0, max(POLL_SECONDS / 2, self._control.resumes_in(time.monotonic()))))

    def _learnt(self, error: Exception, used: dict[str, str]) -> Failure | None:
        """Read out of a refusal that a keyword has another name, or none, here; later requests know it."""
        if getattr(error, "status_code", None) not in (400, 422):
            return None
        names = wire.names_learnt(message_of(error), used)
        if names == used:
            return None
        self._names = names
        return Failure(GenerationError("the server names a keyword otherwise"), transient=True)

    async def _stream(self, ticket: Ticket, keywords: dict[str, Any]) -> Completion:
        started, first = time.perf_counter(), None
        reading = wire.Reading()
        watch = LoopWatch.of_text() if ticket.request.generation.cut_repeats else None
        stream = await self._client.api.chat.completions.create(
            model=self._spec.model, stream=True, **keywords
        )
        async with stream:
            async for chunk in stream:
                reading.feed(chunk)
                if reading.text:
                    first = first or time.perf_counter()
                    _deliver(ticket, reading.text)
                if watch is not None and watch.sees_loop(reading.text):
                    reading.ending = "runaway"
                    break
        return _completion(ticket, reading, started, first)


def _deliver(ticket: Ticket, text: str) -> None:
    """Push what is new. A second try repeats the text of the first; one that differs cannot be joined."""
    known = ticket.text
    if text.startswith(known):
        if ticket.request.interactive:
            ticket.push(text[len(known) :])
    elif not known.startswith(text):
        raise ServerError("the stream was cut, and the second try gave another answer.")


def _completion(ticket: Ticket, reading: wire.Reading, started: float, first: float | None) -> Completion:
    if reading.ending is None:
        raise Unreadable("the answer was cut before its end")
    if reading.ending == "content_filter":
        raise withheld()
    _deliver(ticket, reading.text)
    ticket.push(reading.text[len(ticket.text) :])
    usage = Usage(
        prompt_tokens=reading.prompt_tokens,
        new_tokens=reading.new_tokens,
        seconds=ticket.seconds,
        first_token_seconds=None if first is None else first - started,
        finish_reason=reading.finish_reason,
    )
    logprobs, tokens = tuple(reading.logprobs) or None, tuple(reading.tokens) or None
    return Completion(text=reading.text, usage=usage, token_logprobs=logprobs, token_texts=tokens)
