"""Strings and numbers as models write them: lost quotes, stray quotes, escapes, endless digits."""

from __future__ import annotations

import json
import re

MAX_LABEL = 500
NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_STRING_STOPS = {quote: re.compile(rf"[{quote}\\\n{{}}]") for quote in "\"'"}
_AFTER_STRING = re.compile(r"""[ \t]*(?:[\r\n,:\])}]|\Z|["']\w+["'][ \t]*:)""")
_LOST_QUOTE = re.compile(r"""\n|\}\s*(?:\Z|[\]}]|,\s*\{)|\{\s*["']""")
NUMBERS = re.compile(NUMBER)
_WORD_END = re.compile(r"[,\n{}\[\]:]")


def read_string(text: str, start: int, written: str) -> tuple[str, int]:
    """Return the string of ``written`` that the quote at ``start`` opens, and where reading goes on.

    A quote ends it only where a comma, colon, bracket, newline or key follows, so stray quotes inside a
    label stay in it; a newline or a brace that goes on as JSON ends it (its closing quote was lost).
    """
    quote = text[start]
    pos = start + 1
    while (stop := _STRING_STOPS[quote].search(text, pos)) is not None:
        pos = stop.end() + (stop.group() == "\\")
        if stop.group() == quote and _AFTER_STRING.match(text, pos):
            return _unescape(written[start + 1 : stop.start()]), pos
        if stop.group() not in (quote, "\\") and _LOST_QUOTE.match(text, stop.start()):
            return _unescape(written[start + 1 : stop.start()]), stop.start()
    return _unescape(written[start + 1 :]), len(text)


def _unescape(body: str) -> str:
    body = body[:MAX_LABEL]
    if "\\" not in body:
        return body
    try:
        plain = str(json.loads(f'"{body}"', strict=False))
    except ValueError:
        plain = body.replace('\\"', '"').replace("\\'", "'").replace("\\\\", "\\")
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def word_end(text: str, pos: int) -> int:
    """Return where an unquoted phrase that goes on at ``pos`` ends: at a comma, colon, bracket or newline."""
    stop = _WORD_END.search(text, pos, pos + MAX_LABEL)
    return stop.start() if stop else min(len(text), pos + MAX_LABEL)


def number(token: str) -> float:
    """Return the number that ``token`` spells; NaN for one too long to be a coordinate."""
    return float(token) if len(token) <= 32 else float("nan")


def numbers_in(text: str, limit: int = 64) -> list[float]:
    """Return the first ``limit`` numbers that stand in ``text``, whatever is between them."""
    found = []
    for match in NUMBERS.finditer(text):
        found.append(number(match.group()))
        if len(found) >= limit:
            break
    return found
