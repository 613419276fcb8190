"""The options of the magics, through ``magic_arguments``: parsing, help, and errors in one line."""

from __future__ import annotations

import argparse
import ast
import keyword
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from IPython.core.error import UsageError
from IPython.core.magic_arguments import argument, argument_group

from ..errors import OptionError, PromptError, SourceNotFound
from . import grammar
from .holding import IMAGE_SUFFIXES
from .scope import Scope

_IN_CELL = "in a cell magic the question goes below the first line."
_IMAGES_ONLY = "%caption takes images only; to ask for something, use %vqa IMAGE QUESTION."
_IMAGE_FIRST = "the image comes first, then the question or phrase."
_WORD = re.compile(r"[^\W\d][\w'’?!,-]*")
"""A word of a text, rather than the name of a file."""
F = TypeVar("F", bound=Callable[..., Any])


def yes_or_no(word: str) -> bool:
    """Read a switch that is on by default. Raises ArgumentTypeError."""
    known = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    try:
        return known[word.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{word!r}: expected yes or no") from None


GENERATION: dict[str, tuple[Callable[[str], Any] | None, str]] = {
    "max_new_tokens": (int, "longest answer, in tokens (512)"),
    "min_new_tokens": (int, "shortest answer, in tokens"),
    "do_sample": (None, "draw the answer at random (default: the most likely one, the same every time)"),
    "temperature": (float, "above 0 samples; 0 is greedy"),
    "top_p": (float, "sample from the likeliest tokens that make up this probability"),
    "top_k": (int, "sample from this many likeliest tokens"),
    "repetition_penalty": (float, "above 1 discourages repetition"),
    "num_beams": (int, "beam search of this width"),
    "seed": (int, "makes sampling repeatable"),
    "cut_repeats": (yes_or_no, "no: an answer that repeats itself without end is not cut (yes)"),
}
"""Generation key → (type, help); a type of None is a switch."""


def asking_options(function: F) -> F:
    """Add the options that every asking magic has."""
    options = [
        argument("-o", "--out", metavar="NAME", help="store the result in this variable"),
        argument("--model", metavar="NAME", help="a loaded model, instead of the current one"),
        argument("--system", metavar="TEXT", help="system prompt"),
        argument("--together", action="store_true", help="one prompt about all images"),
        argument("--recursive", action="store_true", help="look into the subfolders of a folder too"),
        argument("--chat", action="store_true", help="continue the last conversation"),
        argument("--compare", metavar="NAME", help="ask this loaded model too, answers side by side"),
        argument_group("generation, as Hugging Face names it"),
        *(_generation_argument(name, kind, text) for name, (kind, text) in GENERATION.items()),
        argument(
            "--stop", metavar="TEXT", action="append", help="end the answer at this text (may be repeated)"
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def schema_option(function: F) -> F:
    """Add ``--schema``, for the magic that asks freely."""
    text = "answer in this form: a pydantic model, dataclass, JSON schema, regex or list of choices"
    return argument("--schema", metavar="EXPR", help=text)(function)  # type: ignore[no-any-return]


def _generation_argument(name: str, kind: Callable[[str], Any] | None, text: str) -> argument:
    if kind is None:
        return argument(f"--{name}", action="store_true", default=None, help=text)
    return argument(f"--{name}", metavar="N", type=kind, help=text)


@dataclass(slots=True)
class Call:
    """A parsed asking magic. ``source`` is None where none was written; ``code`` is the Python that makes it.

    ``questions`` holds one entry a question, empty where nothing was written.
    """

    source: Any
    code: str
    questions: list[str]
    options: argparse.Namespace
    generation: dict[str, Any] = field(default_factory=dict)
    schema: Any = None


def flags_of(function: Any) -> dict[str, bool]:
    """Every option of a magic, and whether it takes a value."""
    actions: Mapping[str, argparse.Action] = function.parser._option_string_actions
    return {flag: action.nargs != 0 for flag, action in actions.items()}


def parse_call(
    function: Any, line: str, cell: str | None, names: Mapping[str, Any], *, only_sources: bool = False
) -> Call:
    """Parse the line and body of an asking magic, with ``{{expr}}`` taken from ``names``.

    Raises OptionError, PromptError and SourceNotFound, each in one line.
    """
    scope = Scope(names)
    parts = _split(line, flags_of(function), scope, only_sources=only_sources or cell is not None)
    if cell is not None and parts.question:
        raise PromptError(_IN_CELL)
    if only_sources and parts.question:
        raise PromptError(_IMAGES_ONLY)
    advice = _IN_CELL if cell is not None else _IMAGES_ONLY if only_sources else _IMAGE_FIRST
    source, code = _joined(_sources(parts, scope, advice))
    _refuse_second_image(parts, scope)
    options = parse_options(function, parts.options, scope)
    if options.out is not None and (not options.out.isidentifier() or keyword.iskeyword(options.out)):
        raise OptionError(f"-o {options.out}: expected the name of a variable.")
    written = getattr(options, "schema", None)
    return Call(
        schema=None if written is None else scope.evaluate(written, shown=f"--schema {written}"),
        source=source,
        code=code,
        questions=[scope.expand(text) for text in _questions(cell, parts.question)],
        options=options,
        generation=generation_of(options),
    )


def _sources(parts: grammar.Line, scope: Scope, advice: str) -> list[tuple[Any, str]]:
    """The value and the code of each source; ``advice`` is added where a question stands for one."""
    try:
        return [scope.source(token) for token in parts.sources]
    except SourceNotFound as error:
        from ..sources import placed

        several = len(parts.sources) > 1 or parts.question is not None
        if parts.ended or not several or not _WORD.fullmatch(error.source or ""):
            placed(error)
            raise
        told = f"{error.message} {advice[0].upper()}{advice[1:]}"
        raise SourceNotFound(told, source=error.source) from None


def _refuse_second_image(parts: grammar.Line, scope: Scope) -> None:
    """``%vqa a.jpg b.jpg What?`` would ask about a.jpg only, ``%vqa "What?" a.jpg`` about nothing."""
    words = (parts.question or "").split()
    if parts.ended or not words or not words[0].lower().endswith(IMAGE_SUFFIXES):
        return
    if os.path.isfile(os.path.expanduser(words[0])):
        first = parts.sources[0] if parts.sources else None
        if first is not None and first.quoted and not scope.names_images(first):
            raise PromptError(f"{words[0]} is the image, not {first.text!r}: {_IMAGE_FIRST}")
        raise PromptError(f"{words[0]} is an image too: end the images with --, then write the question.")


def _split(line: str, flags: Mapping[str, bool], scope: Scope, *, only_sources: bool) -> grammar.Line:
    """Cut the line; with ``--chat`` the first word may be the question's already."""
    parts = grammar.split(line, flags, only_sources=only_sources)
    chats = any(flag == "--chat" for flag, _ in parts.options)
    if chats and not only_sources and len(parts.sources) == 1 and not scope.names_images(parts.sources[0]):
        return grammar.split(line, flags, no_sources=True)
    return parts


def _questions(cell: str | None, question: str | None) -> list[str]:
    if cell is not None:
        return grammar.questions(cell)
    return [] if question is None else [question]


def _joined(found: list[tuple[Any, str]]) -> tuple[Any, str]:
    """Several sources as one list; a list among them is taken apart."""
    if len(found) < 2:
        return found[0] if found else (None, "None")
    joined: list[Any] = []
    codes = []
    for value, code in found:
        several = isinstance(value, (list, tuple))
        joined += value if several else [value]
        codes.append(f"*{code}" if several else code)
    return joined, f"[{', '.join(codes)}]"


def generation_of(options: argparse.Namespace) -> dict[str, Any]:
    """The generation settings that were given."""
    given = {name: getattr(options, name) for name in (*GENERATION, "stop")}
    return {name: value for name, value in given.items() if value is not None}


def parse_options(function: Any, given: list[tuple[str, str | None]], scope: Scope) -> argparse.Namespace:
    """Run the magic's own parser over (flag, value) pairs. Raises OptionError in one line."""
    words = [flag if value is None else f"{flag}={scope.expand(value)}" for flag, value in given]
    short = [word for word in words if not word.startswith("--")]
    argv = [word for word in words if word.startswith("--")]
    for word in short:  # argparse reads -o=x as "=x"
        flag, _, value = word.partition("=")
        argv += [flag, value]
    try:
        options: argparse.Namespace = function.parser.parse_args(argv)
    except UsageError as error:
        raise OptionError(str(error).removeprefix("argument ")) from None
    return options


def literal(text: str, scope: Scope) -> Any:
    """Read an option's value: ``{{expr}}``, a bracketed expression, a number, True/False/None, or text."""
    if text.startswith("{{"):
        return scope.value(text)
    if text[:1] in ("[", "(", "{"):
        return scope.evaluate(text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return scope.expand(text)
