"""The openai client for one endpoint, and what of it must never be shown."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ... import extras
from ...errors import MissingDependency
from ..base import forget_frames
from .failures import Failure, failure_of
from .listing import ServedModel, fetch
from .presets import NO_KEY, Endpoint, Key, endpoint

CONNECT_SECONDS = 10.0
INSTALL = f"the openai engine needs the openai package:  {extras.command('openai')}"


class Client:
    """The openai client (as ``api``), which tries once and never asks a proxy for a server on this machine.

    ``args`` are the engine's ``engine_args``. Raises MissingDependency without the openai package.
    """

    def __init__(self, where: Endpoint, args: Mapping[str, Any]) -> None:
        try:
            import openai
        except ImportError:
            raise MissingDependency(INSTALL) from None
        headers, query = args.get("default_headers"), args.get("default_query")
        self.where = where
        self._secrets = {str(value) for value in (*(headers or {}).values(), *(query or {}).values())}
        self.api: Any = openai.AsyncOpenAI(
            api_key=self._key(where.key),
            base_url=where.url,
            max_retries=0,
            timeout=openai.Timeout(float(args.get("timeout", 300.0)), connect=CONNECT_SECONDS),
            default_headers=headers,
            default_query=query,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not where.local),
        )

    def _key(self, key: Key) -> Any:
        if isinstance(key, str):
            self._secrets.add(key)
            return key

        async def fresh() -> str:
            value = await asyncio.to_thread(key)
            self._secrets.add(value)
            return value

        return fresh

    def failure(self, error: BaseException, model: str, offered: Sequence[ServedModel] = ()) -> Failure:
        """Read an error of the client and drop its frames, which hold images and headers."""
        names = [one.name for one in offered]
        found = failure_of(error, self.where.url, model, self._secrets - {NO_KEY}, names)
        forget_frames(error)
        return found


def list_models(base_url: str | None = None, api_key: Key | None = None) -> list[str]:
    """Return the names of the models that a server offers.

    ``base_url`` is a URL or a preset's name, as in ``load``. Raises LoadError when it cannot be asked.
    """
    where = endpoint(base_url, api_key)
    with ThreadPoolExecutor(1) as elsewhere:  # a notebook's own thread already runs an event loop
        return elsewhere.submit(asyncio.run, _names(where)).result()


async def _names(where: Endpoint) -> list[str]:
    client = Client(where, {})
    try:
        return [model.name for model in await fetch(client)]
    finally:
        await client.api.close()
