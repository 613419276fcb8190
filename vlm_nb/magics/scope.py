"""The user's names: ``{{expr}}`` in texts, and what a source on the line stands for."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import PromptError, SourceNotFound, nearest
from .grammar import Token
from .holding import holds_images

_WHOLE = re.compile(r"\{\{(.*)\}\}", re.DOTALL)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|data:")
_NAME = re.compile(r"[A-Za-z_]\w*")
_FILE = re.compile(r"[\w\-/]*\.[\w.\-/]*")
"""What may be meant as the name of a file, even where its first word is a variable."""


class Scope:
    """Evaluates what the user wrote in the user's own namespace."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = dict(names)

    def expand(self, text: str) -> str:
        r"""Replace every ``{{expr}}`` by its value; ``\{{`` is a literal ``{{``, a lone ``{`` is text.

        Raises PromptError naming an undefined name, an unclosed ``{{`` or what the expression raised.
        """
        pieces: list[str] = []
        position = 0
        while (start := text.find("{{", position)) >= 0:
            if start and text[start - 1] == "\\":
                pieces.append(text[position : start - 1] + "{{")
                position = start + 2
                continue
            value, end = self._braced(text, start)
            pieces += [text[position:start], str(value)]
            position = end
        return "".join(pieces) + text[position:]

    def value(self, text: str) -> Any:
        """Return what one ``{{expr}}`` that is the whole text stands for, else the expanded text."""
        if text.startswith("{{"):
            value, end = self._braced(text, 0)
            if end == len(text):
                return value
        return self.expand(text)

    def _braced(self, text: str, start: int) -> tuple[Any, int]:
        """Evaluate the expression in the double braces at ``start``: (value, where they end)."""
        end = text.find("}}", start + 2)
        if end < 0:
            raise PromptError(rf"unclosed {{{{ in: {_short(text)}  (write \{{{{ for a literal {{{{)")
        first = text[start + 2 : end].strip()
        while end >= 0:
            code = text[start + 2 : end].strip()
            if _compiles(code):
                return self.evaluate(code, shown=f"{{{{{code}}}}}"), end + 2
            end = text.find("}}", end + 1) if len(code) < 2000 else -1
        raise PromptError(
            rf"{{{{{_short(first)}}}}} is no Python expression  (write \{{{{ for a literal {{{{)"
        )

    def evaluate(self, code: str, *, shown: str | None = None) -> Any:
        """Return the value of a Python expression. Raises PromptError in one line."""
        shown = shown or code
        try:
            return eval(compile(code.strip(), "<vlm_nb>", "eval"), self._names)  # noqa: S307 - the user's own code
        except NameError as error:
            raise PromptError(f"{shown}: {error}{self._similar(error.name)}") from None
        except SyntaxError:
            raise PromptError(f"{shown} is no Python expression.") from None
        except Exception as error:  # noqa: BLE001 - whatever the user's expression raises
            raise PromptError(f"{shown}: {type(error).__name__}: {error}") from None

    def _similar(self, name: str | None) -> str:
        close = nearest(name or "", [n for n in self._names if not n.startswith("_")])
        return f"; did you mean {', '.join(close)}?" if close else ""

    def source(self, token: Token) -> tuple[Any, str]:
        """Return what ``token`` names, and the Python that says so.

        An existing file comes before a glob with a match, before a variable or expression; quoted text and
        URLs are never Python. Raises SourceNotFound, and PromptError for an expression that fails.
        """
        if whole := _WHOLE.fullmatch(token.text):
            value = self.value(token.text)
            return (
                (value, repr(value)) if isinstance(value, str) else (_listed(value), f"({whole[1].strip()})")
            )
        text = self.expand(token.text)
        if token.quoted or _URL.match(text) or _on_disk(text):
            return text, repr(text)
        if self._is_expression(text):
            return _listed(self._source_value(text)), text
        raise self._not_found(text)

    def names_images(self, token: Token) -> bool:
        """Whether ``token`` is surely a source: a path or URL, or a variable that holds images."""
        text = token.text
        if "/" in text or Path(text).suffix or _on_disk(text) or _URL.match(text):
            return not token.quoted or _on_disk(text)
        return not token.quoted and (text[0] in "[({" or holds_images(self._names.get(text)))

    def _is_expression(self, text: str) -> bool:
        """Whether this can be Python: a bracketed expression, or one that starts with a known name."""
        if text[:1] in ("[", "(", "{"):
            return True
        name = _NAME.match(text)
        return name is not None and name[0] in self._names and _compiles(text)

    def _source_value(self, text: str) -> Any:
        try:
            value = self.evaluate(text)
        except PromptError:
            if _FILE.fullmatch(text):  # photo.jpg, with a variable called photo
                raise self._not_found(text) from None
            raise
        if value is None:
            raise PromptError(f"{text} is None, not an image.")
        return value

    def _not_found(self, text: str) -> SourceNotFound:
        from ..sources.paths import missing

        if glob.has_magic(text):
            return SourceNotFound(f"nothing matches {text}", source=text)
        names = [name for name in self._names if not name.startswith("_")]
        hint = missing(Path(os.path.expanduser(text)), names)
        return SourceNotFound(f"no file, folder or variable {text!r}{hint}", source=text)


def _compiles(code: str) -> bool:
    try:
        compile(code, "<vlm_nb>", "eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def _on_disk(text: str) -> bool:
    path = os.path.expanduser(text)
    try:
        return os.path.exists(path) or (
            glob.has_magic(path) and next(glob.iglob(path, recursive=True), None) is not None
        )
    except (OSError, ValueError):
        return False


def _listed(value: Any) -> Any:
    """A generator (``Path.glob``, say) as a list; anything else as it is."""
    return list(value) if hasattr(value, "__next__") else value


def _short(text: str, limit: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
