"""``%vqa``, ``%ground``, ``%caption`` and ``%vlm``.

``grammar`` cuts a line, ``scope`` looks names up, ``arguments`` parses, ``answers`` asks and ``streaming``
shows; ``commands`` ties them to IPython, ``questionmark`` lets a line end with one, ``manage`` is ``%vlm``.
Loaded models live in ``vlm_nb.registry``, so that reloading the extension keeps them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["register", "unregister"]


def register(shell: InteractiveShell) -> None:
    """Add the magics, their completion, formatters and settings to ``shell``."""
    from . import questionmark
    from .commands import VlmMagics
    from .completion import matcher_of

    unregister(shell)
    magics = VlmMagics(shell)
    shell.register_magics(magics)
    magics.once.register()
    questionmark.register(shell)
    if lost := questionmark.advice(questionmark.running_cell(shell)):
        print(lost)  # noqa: T201 - IPython itself says "Object … not found." below it
    if shell.Completer is not None:
        shell.Completer.custom_matchers.append(matcher_of(shell))


def unregister(shell: InteractiveShell) -> None:
    """Take everything out again that ``register`` added."""
    from . import questionmark
    from .commands import VlmMagics
    from .completion import IDENTIFIER

    questionmark.unregister(shell)
    for magics in [c for c in shell.configurables if isinstance(c, VlmMagics)]:
        shell.configurables.remove(magics)
        magics.once.unregister()
        _remove_magics(shell, magics)
    if shell.Completer is not None:
        matchers = shell.Completer.custom_matchers
        matchers[:] = [m for m in matchers if getattr(m, "matcher_identifier", None) != IDENTIFIER]


def _remove_magics(shell: InteractiveShell, magics: object) -> None:
    manager = shell.magics_manager
    for table in manager.magics.values():
        for name in [n for n, function in table.items() if getattr(function, "__self__", None) is magics]:
            del table[name]
    manager.registry.pop(type(magics).__name__, None)
