"""Errors of the hub and of transformers in plain words: what was given, what is allowed, what to do next.

Messages never quote an error of the hub: it may hold a signed address.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from ...errors import (
    Cancelled,
    DownloadError,
    LoadError,
    MissingDependency,
    ModelAccessDenied,
    ModelNotFound,
    OptionError,
    OutOfMemory,
    UnsafeModel,
    VLMError,
)
from .devices import in_gib, is_out_of_memory

NETWORK_PACKAGES = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
Maker = Callable[[str, str | None], VLMError]


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line of an error's text that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:limit]


def needs_code(name: str) -> UnsafeModel:
    """The error for a checkpoint that runs with code of its own."""
    return UnsafeModel(
        f"{name} needs code from its own repository, which could do anything on this machine. Read that "
        "code; if you trust it, load with trust_remote_code=True."
    )


# The hub ----------------------------------------------------------------------------------------------------


def unreachable(error: BaseException) -> bool:
    """Whether the hub could not be asked at all: the network is down, or the server is."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        return (_status(error) or 0) >= 500
    from_network = type(error).__module__.split(".")[0] in NETWORK_PACKAGES
    return from_network or isinstance(error, OfflineModeIsEnabled | ConnectionError | TimeoutError)


def from_hub(error: BaseException, name: str, revision: str | None) -> VLMError:
    """Return an error of huggingface_hub, or of the network below it, as one of ours."""
    from huggingface_hub import errors as hub

    if isinstance(error, LoadError | Cancelled):
        return error
    table: tuple[tuple[tuple[type[BaseException], ...], Maker], ...] = (
        ((hub.LocalTokenNotFoundError,), _no_token),
        ((hub.GatedRepoError, hub.DisabledRepoError), _denied),
        ((hub.RevisionNotFoundError,), _no_revision),
        ((hub.RepositoryNotFoundError, hub.HFValidationError), _no_model),
        ((hub.RemoteEntryNotFoundError,), _no_file),
    )
    for kinds, make in table:
        if isinstance(error, kinds):
            return make(name, revision)
    if _status(error) in (401, 403):
        return _denied(name, revision)
    return _download_failed(error, name)


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _denied(name: str, revision: str | None) -> VLMError:
    return ModelAccessDenied(
        f"access to {name} was refused. Ask for access on https://huggingface.co/{name}, then log in with "
        "`hf auth login`, set HF_TOKEN, or pass token=... (a token that may read this repository)."
    )


def _no_token(name: str, revision: str | None) -> VLMError:
    return ModelAccessDenied(f"{name}: token=True, but no token is stored; run `hf auth login`.")


def _no_revision(name: str, revision: str | None) -> VLMError:
    return ModelNotFound(
        f"{name} has no revision {revision!r}; its branches, tags and commits are listed on "
        f"https://huggingface.co/{name}/commits/main"
    )


def _no_model(name: str, revision: str | None) -> VLMError:
    return ModelNotFound(
        f"no model {name!r} on the hub, and no such local folder. Check the spelling (org/name); if it is "
        "private, log in with `hf auth login` or pass token=..."
    )


def _no_file(name: str, revision: str | None) -> VLMError:
    return ModelNotFound(f"{name}: a listed file is gone from the hub; load again, or give another revision.")


def _download_failed(error: BaseException, name: str) -> VLMError:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return DownloadError(f"{name}: the disk is full. Make room (`hf cache ls` shows models), load again.")
    status = _status(error)
    reason = f"HTTP {status}" if status else type(error).__name__
    return DownloadError(
        f"{name} could not be downloaded ({reason}). Check the network and load again: files that arrived "
        "whole are kept, and only the rest is fetched."
    )


# transformers -----------------------------------------------------------------------------------------------


def from_transformers(error: Exception, name: str, size: int) -> VLMError:
    """Return an error of ``from_pretrained`` as one of ours.

    ``size`` is that of the weight files in bytes.
    """
    if isinstance(error, VLMError):
        return error
    if is_out_of_memory(error):
        return OutOfMemory(
            f"out of memory while loading {name} ({in_gib(size)} of files). Unload other models, or use "
            'quantization="4bit", device_map="auto", or a smaller model.'
        )
    if "trust_remote_code" in str(error):
        return needs_code(name)
    return _other(error, name)


def _other(error: Exception, name: str) -> VLMError:
    said = first_line(error)
    if "unexpected keyword argument" in said:
        return OptionError(f"model_kwargs: {said}")
    if type(error).__name__ == "SafetensorError":
        return LoadError(f"{name}: a weight file is damaged ({said}). Delete it, and load again to fetch it.")
    if isinstance(error, ImportError):
        return MissingDependency(f"{name} needs another package: {said}")
    if isinstance(error, FileNotFoundError):
        return ModelNotFound(f"{name}: {said}")
    return LoadError(f"{name} cannot be loaded: {said}")
