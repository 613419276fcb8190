"""URL → bytes, limited in time, size and redirects. Only http and https."""

from __future__ import annotations

import base64
import http.client
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from ..errors import ImageTooLarge, SourceError, SourceNotFound
from .source import Source

TIMEOUT = 30.0
"""Seconds for a whole download, from name look-up to the last byte."""
MAX_BYTES = 100_000_000
"""The largest download."""
_CHUNK = 1 << 16
_REDIRECTS = 5


def fetch(source: Source, *, timeout: float = TIMEOUT, max_bytes: int = MAX_BYTES) -> Source:
    """Return a URL source as a source of bytes with the same label; any other source as it is.

    ``timeout`` is in seconds and covers everything. Raises SourceNotFound (404, 410), ImageTooLarge or
    SourceError; no message shows credentials or a query.
    """
    if source.kind != "url":
        return source
    stop = threading.Event()
    try:
        data = _within(lambda: _download(source, timeout, max_bytes, stop), timeout)
    except TimeoutError as error:
        raise SourceError(
            f"{source.label}: no complete answer in {timeout:g} s.", source=source.label
        ) from error
    finally:
        stop.set()
    return Source(source.label, "bytes", data)


def _within(work: Callable[[], bytes], seconds: float) -> bytes:
    """Run ``work`` in a thread of its own; socket timeouts alone let a dripping server hold us forever."""
    done: list[tuple[bytes, BaseException | None]] = []

    def run() -> None:
        try:
            done.append((work(), None))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            done.append((b"", error))

    thread = threading.Thread(target=run, name="vlm-nb-fetch", daemon=True)
    thread.start()
    thread.join(seconds)
    if not done:
        raise TimeoutError
    data, error = done[0]
    if error is not None:
        raise error
    return data


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _REDIRECTS
    max_repeats = _REDIRECTS

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            raise SourceError("redirected to what is not http or https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(source: Source, timeout: float, max_bytes: int, stop: threading.Event) -> bytes:
    label = source.label
    try:
        opener = urllib.request.build_opener(_Redirects)
        with opener.open(_request(source.payload), timeout=timeout) as response:
            return _read(response, max_bytes, time.monotonic() + timeout, stop)
    except urllib.error.HTTPError as error:
        with error:
            raise _http_error(label, error) from None
    except SourceError as error:
        raise type(error)(f"{label}: {error}.", source=label) from None
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(getattr(error, "reason", None), TimeoutError):
            raise TimeoutError from None
        reason = getattr(error, "reason", None) or error
        raise SourceError(f"{label}: cannot be fetched ({_reason(reason)}).", source=label) from None


def _request(url: str) -> urllib.request.Request:
    """Move user info from the URL to a header that is not sent on to another host."""
    parts = urllib.parse.urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    path = urllib.parse.quote(parts.path, safe="/%:=&~+!$,;'@()*")
    query = urllib.parse.quote(parts.query, safe="/%:=&~+!$,;'@()*?")
    bare = urllib.parse.urlunsplit((parts.scheme, host, path, query, ""))
    headers = {"User-Agent": "vlm-nb", "Accept": "image/*,*/*;q=0.5"}
    request = urllib.request.Request(bare, headers=headers)  # noqa: S310 - http and https only
    if at:
        secret = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    return request


def _read(response: Any, max_bytes: int, deadline: float, stop: threading.Event) -> bytes:
    length = response.headers.get("Content-Length") or ""
    expected = int(length) if length.isdecimal() else None
    data = bytearray()
    while max(len(data), expected or 0) <= max_bytes:
        if stop.is_set() or time.monotonic() > deadline:
            raise TimeoutError
        part = response.read1(_CHUNK)
        if not part and expected is not None and len(data) < expected:
            raise SourceError(f"the connection ended after {len(data)} of {expected} bytes")
        if not part:
            return bytes(data)
        data += part
    raise ImageTooLarge(f"larger than the limit of {max_bytes / 1e6:g} MB (max_bytes)")


def _http_error(label: str, error: urllib.error.HTTPError) -> SourceError:
    if error.code in (404, 410):
        return SourceNotFound(f"{label}: the server has no such file ({error.code}).", source=label)
    if 300 <= error.code < 400:
        target = urllib.parse.urljoin("http://", error.headers.get("Location") or "")
        allowed = urllib.parse.urlsplit(target).scheme in ("http", "https", "")
        problem = (
            f"more than {_REDIRECTS} redirects" if allowed else "redirected to what is not http or https"
        )
        return SourceError(f"{label}: {problem}.", source=label)
    hint = " It needs credentials, or refuses scripts." if error.code in (401, 403) else ""
    return SourceError(f"{label}: the server answered {error.code} {error.reason}.{hint}", source=label)


def _reason(reason: Any) -> str:
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return text if "://" not in text and "@" not in text else type(reason).__name__
