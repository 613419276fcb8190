"""Where a server is and which key opens it. A preset is a base URL and the name of a key variable."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ...errors import MissingDependency, OptionError, unknown_option

Key = str | Callable[[], str]
"""A key, or a function that returns a fresh one for each request (tokens that expire)."""
NO_KEY = "none"
"""Sent where a server asks for no key: the client insists on one."""


@dataclass(frozen=True, slots=True)
class Preset:
    """``url`` is what ``base_url="name"`` stands for; ``key_variable`` the variable with the key."""

    url: str
    key_variable: str | None = None


PRESETS: dict[str, Preset] = {
    "openai": Preset("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": Preset("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "gemini": Preset("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "together": Preset("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "sambanova": Preset("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "parasail": Preset("https://api.parasail.io/v1", "PARASAIL_API_KEY"),
    "openrouter": Preset("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "huggingface": Preset("https://router.huggingface.co/v1", "HF_TOKEN"),
    "vllm": Preset("http://127.0.0.1:8000/v1"),
    "transformers": Preset("http://127.0.0.1:8000/v1"),
    "sglang": Preset("http://127.0.0.1:30000/v1"),
    "lmdeploy": Preset("http://127.0.0.1:23333/v1"),
    "ollama": Preset("http://127.0.0.1:11434/v1"),
    "llama.cpp": Preset("http://127.0.0.1:8080/v1"),
}
"""The local ones are the servers' default ports."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's base URL and key. The key never shows in a repr."""

    url: str
    key: Key = field(default=NO_KEY, repr=False)

    @property
    def local(self) -> bool:
        """Whether the server is on this machine (then no HTTP proxy is asked)."""
        return urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")


def endpoint(base_url: str | None, api_key: Key | None = None) -> Endpoint:
    """Find the server and its key.

    ``base_url`` is a URL or a preset's name; None takes ``OPENAI_BASE_URL``, else OpenAI. Without ``api_key``
    the variable of the preset with that URL is read, else ``VLM_NB_API_KEY``: a key goes to its own host
    only. ``api_key="env:NAME"`` reads the variable NAME. Raises OptionError.
    """
    given = base_url or os.environ.get("OPENAI_BASE_URL") or "openai"
    preset = PRESETS.get(given.lower())
    url = preset.url if preset else checked_url(given)
    return Endpoint(url, _key(url, api_key))


def checked_url(given: str) -> str:
    """Return ``given`` without a trailing slash, with ``/v1`` where it has no path.

    Raises OptionError for a URL without a scheme, or with credentials or a query in it: those would be shown.
    """
    url = given.strip()
    if "://" not in url:
        if "." not in url and ":" not in url and "/" not in url:
            raise unknown_option("base_url preset", url, PRESETS)
        hidden = url.rsplit("@", 1)[-1].partition("?")[0]
        raise OptionError(f"base_url={hidden!r} has no scheme; did you mean http://{hidden}?")
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query:
        raise OptionError(
            "base_url holds credentials or a query, which would be shown in outputs; "
            'pass api_key=..., or engine_args={"default_headers": ..., "default_query": ...}.'
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OptionError(f"base_url={url!r}: expected http://HOST:PORT/v1 or https://HOST/v1.")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") or "/v1", "", ""))


def _key(url: str, given: Key | None) -> Key:
    if callable(given):
        return given
    if given and given.startswith("env:"):
        return _variable(given.removeprefix("env:"))
    if given:
        return given
    owners = [p.key_variable for p in PRESETS.values() if urlsplit(p.url).netloc == urlsplit(url).netloc]
    owner = next((name for name in owners if name), None)
    return _variable(owner) if owner else os.environ.get("VLM_NB_API_KEY") or NO_KEY


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise OptionError(f"no API key: set the environment variable {name}, or pass api_key=...")
    return value


def vertex(project: str, location: str = "us-central1") -> dict[str, Any]:
    """Return ``base_url`` and ``api_key`` of Google Vertex AI: ``load(name, engine="openai", **vertex(…))``.

    The key is a function that refreshes the token of the machine's Google credentials when it has expired.
    """
    host = "aiplatform.googleapis.com" if location == "global" else f"{location}-aiplatform.googleapis.com"
    path = f"/v1/projects/{project}/locations/{location}/endpoints/openapi"
    return {"base_url": f"https://{host}{path}", "api_key": google_token()}


def google_token() -> Callable[[], str]:
    """Return a function that gives a valid Google token. Raises MissingDependency without google-auth."""
    try:
        auth = importlib.import_module("google.auth")
        transport = importlib.import_module("google.auth.transport.requests")
    except ImportError:
        raise MissingDependency("Vertex AI needs google-auth:  pip install google-auth requests") from None
    credentials, _ = auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])

    def token() -> str:
        if not credentials.valid:
            credentials.refresh(transport.Request())
        return str(credentials.token)

    return token


def gguf_command(path: str) -> str:
    """Say how to serve a GGUF file."""
    return (
        f"{path} is a GGUF file, which llama.cpp serves. Start:  "
        f"llama-server -m {path} --mmproj MMPROJ.gguf --port 8080"
        f'   then:  vlm_nb.load("{PurePath(path).stem}", engine="openai", base_url="llama.cpp")'
    )
