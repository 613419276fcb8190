"""URIs as text: schemes, data URIs, and URLs that may be shown."""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse

from ..errors import SourceError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://|(data):", re.ASCII)


def scheme_of(text: str) -> str | None:
    """The lower-case scheme of ``s3://…`` or ``data:…``; None for anything else, a drive letter too."""
    match = _SCHEME.match(text)
    return (match[1] or match[2]).lower() if match else None


def public_url(url: str) -> str:
    """A URL as it may be shown, logged and stored: without user info, query and fragment."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return url.partition("://")[0] + "://…"
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", "")) + ("?…" if parts.query else "")


def decode_data_uri(uri: str) -> tuple[bytes, str]:
    """Return the bytes and the media type of ``data:[type][;base64],…``; raises SourceError."""
    head, comma, body = uri[len("data:") :].partition(",")
    media = head.split(";")[0].strip() or "text/plain"
    if not comma:
        raise SourceError("a data URI without a comma: expected data:image/png;base64,….", source="data URI")
    if "base64" not in head.split(";")[1:]:
        return urllib.parse.unquote_to_bytes(body), media
    try:
        text = urllib.parse.unquote(body) if "%" in body else body
        return base64.b64decode("".join(text.split()), validate=True), media
    except (binascii.Error, ValueError) as error:
        raise SourceError(
            f"a data URI whose base64 cannot be decoded: {error}.", source="data URI"
        ) from error
