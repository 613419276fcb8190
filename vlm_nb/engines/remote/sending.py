"""One request to a server: its keywords, its tries, its stream, and the completion at the end."""

from __future__ import annotations

import asyncio
import functools
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import GenerationError, ServerError, VLMError
from ...request import Completion, Request, Usage
from ..base import POLL_SECONDS, Ticket, as_vlm_error
from ..runaway import LoopWatch
from ..spec import LoadSpec
from . import pictures, wire
from .client import Client
from .concurrency import AdaptiveConcurrency
from .failures import Failure, Unreadable, message_of, withheld
from .listing import ServedModel
from .reading import Reading

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST_WAIT = 120.0
"""Seconds of ``Retry-After`` that are waited for; a server that asks for more gets no second try."""
LONGEST_BACKOFF = 30.0
"""Seconds between two tries where the server asks for nothing."""
ENCODERS = 2


class Sender:
    """Sends requests through ``client``, on the loop that ``answer`` is awaited in.

    ``control`` says how many streams may be open, and learns how they end. ``server`` (its kind) and
    ``offered`` (its models) are set when they are known.
    """

    def __init__(self, spec: LoadSpec, client: Client, control: AdaptiveConcurrency) -> None:
        self.server = str(spec.engine_args.get("server", "openai"))
        self.offered: list[ServedModel] = []
        self.encoders = ThreadPoolExecutor(ENCODERS, thread_name_prefix="vlm_nb-encode")
        self._spec = spec
        self._args = dict(spec.engine_args)
        self._client = client
        self._control = control
        self._names = dict(wire.NAMES)
        self._open_requests = 0

    async def answer(self, ticket: Ticket) -> None:
        """Answer one ticket; whatever goes wrong is its completion's error."""
        try:
            error = await self._try_all(ticket, await self._keywords(ticket.request))
        except Exception as unexpected:  # noqa: BLE001 - it belongs to this row only
            error = as_vlm_error(unexpected)
        if error is not None:
            ticket.fail(error)

    async def _keywords(self, request: Request) -> dict[str, Any]:
        """The keywords of ``create``; images are encoded in other threads."""
        sent = wire.settings(request, self.server)
        sent["stream_options"] = {"include_usage": True}
        render = functools.partial(wire.chat_messages, request, self._image_url)
        sent["messages"] = await asyncio.get_running_loop().run_in_executor(self.encoders, render)
        if self._args.get("extra_body"):
            sent["extra_body"] = {**sent.get("extra_body", {}), **self._args["extra_body"]}
        if self._args.get("logprobs"):
            sent["logprobs"] = True
        return sent

    def _image_url(self, image: Image) -> str:
        if not self._spec.allow_local_paths:
            return pictures.data_uri(image, self._spec.image_quality)
        folder = self._args.get("media_folder") or Path(tempfile.gettempdir()) / "vlm_nb-media"
        return pictures.shared_file(image, self._spec.image_quality, Path(folder))

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
                error, self._spec.model, self.offered
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
        reading = Reading()
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


def _completion(ticket: Ticket, reading: Reading, started: float, first: float | None) -> Completion:
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
