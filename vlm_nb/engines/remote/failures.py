"""What a failed HTTP attempt means: one clear line, whether to try again, and when. No key gets through."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import CapabilityError, ContextTooLong, GenerationError, ServerError, VLMError, nearest

TRANSIENT = frozenset({408, 409, 425, 429})
LONGEST = 300
"""Characters of a server's own message that are kept."""
SHORTEST = 6
"""Characters of the shortest thing that is taken for a secret: "1" in a query is none."""
_TOO_LONG = ("context length", "context_length", "maximum model length", "max_model_len", "too many tokens")


@dataclass(frozen=True, slots=True)
class Failure:
    """``error`` is for the row that gives up; ``transient`` says that another try may help.

    ``overload`` counts against the concurrency limit; ``retry_after`` are the seconds the server asked for.
    """

    error: VLMError
    transient: bool = False
    overload: bool = False
    retry_after: float | None = None


class Unreadable(Exception):
    """The server sent something that is no answer, or stopped in the middle of one."""


def hidden(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` on one line, at most ``LONGEST`` characters, with every secret replaced."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST:
            text = text.replace(secret, "***")
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def failure_of(
    error: BaseException, where: str, model: str, secrets: Iterable[str], offered: Iterable[str] = ()
) -> Failure:
    """Read an exception of the client.

    ``where`` is the server's URL, ``model`` the name asked for, ``offered`` the names that the server lists.
    """
    if isinstance(error, VLMError):
        return Failure(error)
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 400:
        hint = _meant(model, offered) if status == 404 else ""
        return _status(error, status, where, hidden(message_of(error), secrets) + hint)
    text = hidden(_reason(error), secrets)
    code = _code(error)
    if code is not None and code < 500 and code not in TRANSIENT:
        return Failure(_refusal(text, where))
    return Failure(ServerError(f"{where}: {text}"), transient=_of_the_network(error), overload=True)


def _status(error: BaseException, status: int, where: str, text: str) -> Failure:
    if status in (401, 403):
        return Failure(ServerError(f"{where} refused the API key ({status}): {text}"))
    if status == 404:
        return Failure(ServerError(f"{where} has no such model, or no chat completions (404): {text}"))
    if status < 500 and status not in TRANSIENT:
        return Failure(_refusal(text, where, status))
    spent = "insufficient_quota" in (str(getattr(error, "code", "")), str(getattr(error, "type", "")))
    headers = getattr(getattr(error, "response", None), "headers", {})
    ours = ServerError(f"{where} answered {status}: {text}")
    return Failure(ours, transient=not spent, overload=not spent, retry_after=retry_after(headers))


def _meant(model: str, offered: Iterable[str]) -> str:
    close = nearest(model, offered)
    return f" You asked for {model!r}; did you mean {', '.join(close)}?" if close else f" ({model!r})"


def _refusal(text: str, where: str, status: int = 400) -> VLMError:
    lowered = text.lower()
    if status == 413 or any(phrase in lowered for phrase in _TOO_LONG):
        return ContextTooLong(f"{where}: the request is too long for the model: {text}")
    if "response_format" in lowered:
        return CapabilityError(f"{where} cannot constrain answers to a schema: {text}")
    return ServerError(f"{where} refused the request ({status}): {text}")


def message_of(error: BaseException) -> str:
    """Return what the server said, out of any of the shapes in which servers say it."""
    body = getattr(error, "body", None)
    for _ in range(3):
        if not isinstance(body, Mapping):
            break
        body = next((body[key] for key in ("message", "error", "detail") if body.get(key)), str(dict(body)))
    return str(body or getattr(error, "message", "") or error)


def _code(error: BaseException) -> int | None:
    """The HTTP-like code of an error that came inside a stream."""
    body = getattr(error, "body", None)
    found = str(body.get("code")) if isinstance(body, Mapping) else ""
    return int(found) if found.isdigit() else None


def _reason(error: BaseException) -> str:
    names = {type_.__name__ for type_ in type(error).__mro__}
    if "APITimeoutError" in names or "TimeoutException" in names:
        return "no answer within the time allowed"
    if isinstance(error, Unreadable):
        return str(error)
    if isinstance(error, ValueError):
        return "the answer is not what a chat server sends (unreadable JSON)"
    if "APIConnectionError" in names:
        return f"the connection failed: {_root(error)}"
    return message_of(error) or type(error).__name__


def _root(error: BaseException) -> str:
    """The first cause, which says more than "Connection error."."""
    seen: set[int] = set()
    while (cause := error.__cause__ or error.__context__) is not None and id(cause) not in seen:
        seen.add(id(cause))
        error = cause
    return str(error) or type(error).__name__


def _of_the_network(error: BaseException) -> bool:
    """Whether ``error`` comes from the client or its transport, not from a mistake in our own code."""
    package = type(error).__module__.partition(".")[0]
    return isinstance(error, (OSError, ValueError, Unreadable)) or package in (
        "openai",
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
    )


def retry_after(headers: Mapping[str, Any]) -> float | None:
    """Return the seconds that ``Retry-After`` (seconds or an HTTP date, RFC 9110 10.2.3) asks for."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    given = headers.get("retry-after")
    seconds = _number(given)
    if seconds is not None or not given:
        return seconds
    try:
        return max(0.0, email.utils.parsedate_to_datetime(str(given)).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _number(text: Any) -> float | None:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if 0 <= number < float("inf") else None


def withheld() -> GenerationError:
    """The error of an answer that the server's content filter cut."""
    return ServerError("the server's content filter withheld the answer.")
