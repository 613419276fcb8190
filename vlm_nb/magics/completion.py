"""Completion of the magics' lines: options, models, paths, and variables that hold images or tables."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from .. import config, registry
from ..engines import ENGINES
from ..engines.spec import QUANTIZATIONS
from ..machine import cached_models
from . import manage
from .arguments import flags_of
from .holding import IMAGE_SUFFIXES, holds_images

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

IDENTIFIER = "vlm_nb"
_LINE = re.compile(r"\s*(?:[\w.,\[\]\"' ]+=\s*)?%{1,2}(vqa|ground|caption|vlm)\s(.*)", re.DOTALL)
_BRACES = re.compile(r"\{\{\s*([\w.]*)$")
_CACHE_SECONDS = 10.0


def matcher_of(shell: InteractiveShell) -> Any:
    """Return the matcher for ``shell.Completer.custom_matchers``."""

    @context_matcher(identifier=IDENTIFIER)
    def vlm_matcher(context: CompletionContext) -> SimpleMatcherResult:
        here = _here(context)
        if here is None:
            return {"completions": []}
        words = sorted(set(here.offers(shell)), key=lambda word: (word.startswith("-"), word.lower()))
        fitting = [SimpleCompletion(text=w) for w in words if w.lower().startswith(here.fragment.lower())]
        return {"completions": fitting, "matched_fragment": here.fragment, "suppress": True, "ordered": True}

    return vlm_matcher


@dataclass(frozen=True, slots=True)
class Place:
    """Where the cursor is: in which magic, after which words, on which fragment of a word."""

    magic: str
    before: tuple[str, ...]
    fragment: str
    in_braces: bool = False

    def offers(self, shell: InteractiveShell) -> Iterator[str]:
        """Everything that could stand here."""
        if self.in_braces:
            yield from (name for name in shell.user_ns if not name.startswith("_"))
        elif self.magic == "vlm":
            yield from _management(self)
        else:
            yield from _asking(self, shell)


def _here(context: CompletionContext) -> Place | None:
    line = context.text_until_cursor
    first = context.full_text.lstrip().split("\n", 1)[0]
    in_body = context.cursor_line > 0 and first.startswith(("%%vqa", "%%ground"))
    if (in_body or _LINE.match(line)) and (braces := _BRACES.search(line)):
        return Place("", (), braces[1], in_braces=True)
    match = None if in_body else _LINE.match(line)
    if match is None:
        return None
    words = re.findall(r"\"[^\"]*\"?|\S+", match[2])
    fragment = words.pop() if words and not match[2][-1:].isspace() else ""
    return Place(match[1], tuple(words), fragment)


def _asking(place: Place, shell: InteractiveShell) -> Iterator[str]:
    flags = flags_of(shell.find_line_magic(place.magic))
    last = place.before[-1] if place.before else ""
    if flags.get(last):
        yield from _VALUES.get(last, _nothing)()
        return
    yield from (flag for flag in flags if place.fragment or flag.startswith("--"))
    if place.fragment.startswith("-") or _in_question(place, flags):
        return
    yield from _paths(place.fragment)
    yield from (name for name, value in list(shell.user_ns.items()) if name[0] != "_" and holds_images(value))


def _in_question(place: Place, flags: Mapping[str, bool]) -> bool:
    """Whether a source stands before the cursor already (and no second one may follow)."""
    words = iter(place.before)
    for word in words:
        if word in flags:
            if flags[word]:
                next(words, None)
        elif place.magic != "caption":
            return True
    return False


def _management(place: Place) -> Iterator[str]:
    if not place.before:
        yield from manage.COMMANDS
        return
    command, *words = place.before
    flags = _COMMAND_FLAGS.get(command, _no_flags)()
    last = words[-1] if words else ""
    if flags.get(last):
        yield from _VALUES.get(last, _nothing)()
        return
    yield from flags
    yield from _COMMAND_WORDS.get(command, _nothing)()
    if command == "load":
        yield from _paths(place.fragment, folders_only=True)


def _paths(fragment: str, *, folders_only: bool = False) -> Iterator[str]:
    """Images and folders that start with ``fragment``; one with a space is offered in quotes."""
    quote = fragment[:1] if fragment[:1] in ("'", '"') else ""
    typed = fragment[len(quote) :]
    head, _, tail = typed.rpartition("/")
    folder = f"{head}/" if "/" in typed else ""
    for entry in _entries(Path(os.path.expanduser(folder or "."))):
        if not entry.name.lower().startswith(tail.lower()) or (entry.name[0] == "." and tail[:1] != "."):
            continue
        is_folder = entry.is_dir()
        if is_folder or (not folders_only and entry.name.lower().endswith(IMAGE_SUFFIXES)):
            text = f"{folder}{entry.name}{'/' if is_folder else ''}"
            mark = quote or ('"' if " " in text else "")
            yield f"{mark}{text}{'' if is_folder else mark}"


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)[:5000]
    except OSError:
        return []


_seen: tuple[float, list[str]] = (0.0, [])


def _known_models() -> list[str]:
    """The demo model, the loaded ones and the vision models in the local cache (looked up every 10 s)."""
    global _seen
    if time.monotonic() - _seen[0] > _CACHE_SECONDS or not _seen[1]:
        _seen = (time.monotonic(), [model.name for model in cached_models()])
    return ["demo", *_loaded(), *_seen[1]]


def _loaded() -> list[str]:
    return [model.name for model in registry.loaded()]


def _nothing() -> Iterable[str]:
    return ()


def _no_flags() -> dict[str, bool]:
    return {}


_VALUES: dict[str, Callable[[], Iterable[str]]] = {
    "--model": _loaded,
    "--quantization": lambda: QUANTIZATIONS,
    "--engine": lambda: ENGINES,
    "--dtype": lambda: ("auto", "bfloat16", "float16", "float32"),
    "--device_map": lambda: ("auto", "cpu", "cuda", "mps"),
    "--attn_implementation": lambda: ("sdpa", "eager", "flash_attention_2"),
}
_COMMAND_FLAGS: dict[str, Callable[[], dict[str, bool]]] = {
    "load": manage.load_flags,
    "unload": lambda: {"--all": False},
}
_COMMAND_WORDS: dict[str, Callable[[], Iterable[str]]] = {
    "load": _known_models,
    "use": _loaded,
    "unload": _loaded,
    "config": config.Settings.names,
}
