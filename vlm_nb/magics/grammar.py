"""The line of a magic, cut into options, sources and question. Pure: nothing is evaluated or opened here.

Rules: the first word, quoted text or bracketed expression is the source; words before a lone ``--`` are
all sources; the rest is the question, word for word. Options may stand anywhere; quotes protect them. Quotes
around a source, an option's value or the whole question are removed; an apostrophe is text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..errors import OptionError, PromptError

CLOSING = {"[": "]", "(": ")", "{": "}"}
_OPTION = re.compile(r"(--[A-Za-z][\w-]*)(=.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the line: its text without quotes, where it stood, and whether it was quoted."""

    text: str
    start: int
    end: int
    quoted: bool = False


@dataclass(slots=True)
class Line:
    """What a line holds: (flag, value) pairs, sources, and the question (None where there is none).

    ``ended`` says that a ``--`` ended the sources.
    """

    options: list[tuple[str, str | None]] = field(default_factory=list)
    sources: list[Token] = field(default_factory=list)
    question: str | None = None
    ended: bool = False


def split(
    line: str, flags: Mapping[str, bool], *, only_sources: bool = False, no_sources: bool = False
) -> Line:
    """Cut ``line``. ``flags`` maps every option to whether it takes a value.

    With ``only_sources`` (a cell magic, ``%caption``) every word is a source, with ``no_sources`` none is.
    Raises OptionError for an unknown or incomplete option, PromptError for an unclosed quote or bracket.
    """
    found = Line()
    if no_sources:
        found.question = _question(line, 0, flags, found, strict=True) or None
        return found
    several = only_sources or _has_separator(line)
    position = 0
    while (token := _next(line, position, several or not found.sources)) is not None:
        if _is_word(token, "--"):
            found.ended = True
            found.question = _question(line, token.end, flags, found, strict=False)
            break
        if (end := _take_option(line, token, flags, found)) is not None:
            position = end
        elif several or not found.sources:
            found.sources.append(token)
            position = token.end
        else:
            found.question = _question(line, token.start, flags, found, strict=True)
            break
    return found


def _next(line: str, position: int, sources: bool) -> Token | None:
    """The next token, as a source if one may stand here, else as a word of the question."""
    return next_token(line, position) if sources else next(_words(line, position), None)


def next_token(line: str, position: int) -> Token | None:
    """Return the quoted text, or the word with balanced brackets, at or after ``position``."""
    start = _skip_space(line, position)
    if start >= len(line):
        return None
    if line[start] in "\"'":
        return _quoted(line, start)
    end = _word_end(line, start)
    return Token(line[start:end], start, end)


def _skip_space(line: str, position: int) -> int:
    while position < len(line) and line[position].isspace():
        position += 1
    return position


def _quoted(line: str, start: int) -> Token:
    end = _closing_quote(line, start)
    if end is None:
        raise PromptError(f"unclosed quote {line[start]} in: {line.strip()}")
    return Token(line[start + 1 : end], start, end + 1, quoted=True)


def _closing_quote(line: str, start: int) -> int | None:
    """The matching quote that ends a word: one inside a word (an apostrophe) does not."""
    end = line.find(line[start], start + 1)
    while end >= 0 and end + 1 < len(line) and not line[end + 1].isspace():
        end = line.find(line[start], end + 1)
    return end if end >= 0 else None


def _word_end(line: str, start: int) -> int:
    open_: list[str] = []
    position = start
    while position < len(line):
        char = line[position]
        if not open_ and char.isspace():
            break
        if open_ and char in "\"'":
            position = _string_end(line, position)
        elif char in CLOSING and (open_ or _opens(line, start, position)):
            open_.append(char)
        elif open_ and char == CLOSING[open_[-1]]:
            open_.pop()
        position += 1
    if open_:
        raise PromptError(f"unclosed {open_[-1]} in: {line.strip()}")
    return position


def _opens(line: str, start: int, position: int) -> bool:
    """Whether a bracket here can be Python: at the start of the word, or after a name or another bracket."""
    before = line[position - 1] if position > start else ""
    return not before or before.isalnum() or before in "_])}{=/"


def _string_end(line: str, start: int) -> int:
    """The closing quote of a Python string inside brackets."""
    position = start + 1
    while position < len(line) and line[position] != line[start]:
        position += 2 if line[position] == "\\" else 1
    if position >= len(line):
        raise PromptError(f"unclosed quote {line[start]} in: {line.strip()}")
    return position


def _is_word(token: Token, text: str) -> bool:
    return not token.quoted and token.text == text


def _take_option(line: str, token: Token, flags: Mapping[str, bool], found: Line) -> int | None:
    """Add the option at ``token`` to ``found`` and return where it ends; None if it is no known option."""
    if token.quoted:
        return None
    flag, inline = token.text, None
    if match := _OPTION.fullmatch(token.text):
        flag, inline = f"--{match[1][2:].replace('-', '_')}", match[2]
    if flag not in flags:
        if match:
            raise unknown("option", flag, [name for name in flags if name.startswith("--")])
        return None
    if not flags[flag]:
        if inline is not None:
            raise OptionError(f"{flag} takes no value.")
        found.options.append((flag, None))
        return token.end
    return _take_value(line, token, flag, inline, found)


def unknown(kind: str, word: str, known: Iterable[str]) -> OptionError:
    """The error for an unknown option or command, naming the nearest, or all where none is near."""
    close = difflib.get_close_matches(word, known, n=2, cutoff=0.75)
    allowed = ", ".join(sorted(known)) or "none"
    hint = f"did you mean {' or '.join(close)}?" if close else f"allowed are: {allowed}."
    return OptionError(f"unknown {kind} {word}; {hint}")


def _take_value(line: str, token: Token, flag: str, inline: str | None, found: Line) -> int:
    if inline is not None:
        start = token.start + len(flag) + 1
        value = next_token(line, start) if start < len(line) and not line[start].isspace() else None
    else:
        value = next_token(line, token.end)
    if value is None or _is_word(value, "--"):
        raise OptionError(f"{flag} needs a value.")
    found.options.append((flag, value.text))
    return value.end


def _question(line: str, start: int, flags: Mapping[str, bool], found: Line, *, strict: bool) -> str:
    """The rest of the line without its options. Where not ``strict``, an unknown ``--word`` is text."""
    pieces: list[str] = []
    position = begun = start
    for word in _words(line, start):
        if word.start < position or (not strict and not _known(word.text, flags)):
            continue
        end = _take_option(line, word, flags, found) if word.text.startswith("-") else None
        if end is not None:
            pieces.append(line[begun : word.start])
            position = begun = end
    pieces.append(line[begun:])
    return unquote(" ".join(piece.strip() for piece in pieces).strip())


def _known(word: str, flags: Mapping[str, bool]) -> bool:
    flag = word.partition("=")[0]
    return flag in flags or f"--{flag[2:].replace('-', '_')}" in flags


def _words(line: str, position: int) -> Iterator[Token]:
    """Words as a reader sees them: brackets and apostrophes are text, quoted stretches are one word."""
    while (start := _skip_space(line, position)) < len(line):
        end = _closing_quote(line, start) if line[start] in "\"'" else None
        if end is not None:
            yield Token(line[start + 1 : end], start, end + 1, quoted=True)
            position = end + 1
        else:
            position = next((i for i in range(start, len(line)) if line[i].isspace()), len(line))
            yield Token(line[start:position], start, position)


def _has_separator(line: str) -> bool:
    return any(_is_word(word, "--") for word in _words(line, 0))


def unquote(text: str) -> str:
    """Remove the quotes around a whole text; refuse one that is opened and never closed."""
    if not text or text[0] not in "\"'":
        return text
    end = _closing_quote(text, 0)
    if end is None and text[0] == '"':
        raise PromptError(f"unclosed quote {text[0]} in: {text}")
    return text[1:end] if end == len(text) - 1 else text


def questions(body: str) -> list[str]:
    """Split a cell's body: lines that start with ``- `` are one question each, if the first line does."""
    lines = body.strip().splitlines()
    if not lines or not lines[0].startswith("- "):
        return [body.strip()]
    found: list[str] = []
    for line in lines:
        if line.startswith("- "):
            found.append(line[2:].strip())
        else:
            found[-1] += f"\n{line}"
    return [text.strip() for text in found]
