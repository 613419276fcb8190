"""The ``openai`` engine: every server with OpenAI's chat interface, on this machine or elsewhere.

    model = vlm_nb.load("Qwen/Qwen2.5-VL-7B-Instruct", engine="openai", base_url="http://127.0.0.1:8000/v1")
    model = vlm_nb.load("gpt-4o-mini", engine="openai", base_url="openai")       # key from OPENAI_API_KEY

The engine's thread runs an event loop of its own, at most ``POLL_SECONDS`` a step. Each request is a task in
it, and a cancelled task closes its HTTP stream. ``remote/`` holds what can be tested without a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, TypeVar

from .base import POLL_SECONDS, Capabilities, ModelInfo, Progress, Ticket, raise_if_cancelled
from .remote.client import Client, list_models
from .remote.concurrency import AdaptiveConcurrency
from .remote.dialects import DIALECTS
from .remote.listing import chosen, fetch, info_of
from .remote.options import check
from .remote.presets import PRESETS, endpoint, vertex
from .remote.sending import Sender
from .spec import LoadSpec

__all__ = ["PRESETS", "OpenAIBackend", "list_models", "vertex"]

T = TypeVar("T")


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
        self._where = endpoint(spec.base_url, spec.api_key)
        self._control = AdaptiveConcurrency(
            50 if spec.max_concurrency is None else spec.max_concurrency,
            0.01 if spec.error_threshold is None else spec.error_threshold,
            5.0 if spec.adjust_every is None else spec.adjust_every,
        )
        self._client = Client(self._where, dict(spec.engine_args))
        self._sender = Sender(spec, self._client, self._control)
        self._info: ModelInfo | None = None
        self._tasks: dict[Ticket, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.capabilities = self._abilities()

    def _abilities(self) -> Capabilities:
        schema = DIALECTS[self._sender.server].schema
        logprobs = bool(self._spec.engine_args.get("logprobs"))
        return Capabilities(schema=schema, confidence=logprobs, in_flight=True)

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Nothing to set up: the loop is made by ``open``."""
        return contextlib.nullcontext()

    def prepare(
        self, progress: Callable[[Progress], None], cancelled: threading.Event, room: Mapping[str, int]
    ) -> None:
        """Ask the server for its models. Raises LoadError where it cannot be asked or lacks the model."""
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(self._sender.encoders)
        progress(Progress(text=f"asking {self._where.url} for its models"))
        offered = self._waited(fetch(self._client), cancelled)
        served, server = chosen(self._spec.model, offered, self._spec.engine_args.get("server"))
        self._sender.offered, self._sender.server = offered, server
        self.capabilities = self._abilities()
        self._info = info_of(self._spec, self._where.url, served, server)

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
            self._tasks[ticket] = self._loop.create_task(self._sender.answer(ticket))

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
        self._sender.encoders.shutdown(wait=False, cancel_futures=True)
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
