"""Every error that vlm_nb raises on purpose.

VLMError
├── SourceError (ValueError)              an image could not be read
│   ├── SourceNotFound (FileNotFoundError)   no such file, folder or match
│   └── ImageTooLarge                        more pixels or bytes than allowed
├── OptionError (ValueError)              an unknown or impossible option, keyword or generation key
├── PromptError (ValueError)              an empty prompt, an undefined {{name}}, an unclosed bracket
├── NoModelLoaded (RuntimeError)          nothing to ask
├── ModelUnloaded (RuntimeError)          the model went away while a request was open
├── LoadError (RuntimeError)              a model could not be loaded
│   ├── ModelNotFound (FileNotFoundError)    no such folder, repository or revision
│   ├── ModelAccessDenied (PermissionError)  gated or private repository
│   ├── DownloadError (OSError)              the network failed in mid-way, or is off
│   ├── UnsafeModel                          pickle weights or remote code
│   ├── QuantizationUnavailable              bitsandbytes or the device cannot
│   └── MissingDependency (ImportError)      an optional package is needed
├── OutOfMemory (MemoryError)             loading or generating needs more memory than there is
├── CapabilityError (NotImplementedError) this engine or model cannot do that
├── GenerationError (RuntimeError)        the engine failed while it answered
│   ├── Cancelled                            the caller cancelled
│   ├── ContextTooLong (ValueError)          prompt and images exceed the context
│   ├── SchemaError (ValueError)             an unusable schema, or an answer cut before its end
│   └── ServerError                          a remote engine answered with an error
└── LedgerError (OSError)                 the store of finished rows cannot be used

Each error keeps the builtin kinship that users test for, and carries ``source`` and ``index``
(the input that it belongs to) where there is one. In IPython it is shown as one line. It ends with the
place in the documentation that gives cause and fix; elsewhere that place is a note under the traceback.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from typing import Any


class VLMError(Exception):
    """Base of all errors of this package.

    ``source`` is the input that failed as text (a path, a URL without credentials, "PIL image"),
    ``index`` its place in the inputs; both are None where no input is involved.
    """

    def __init__(self, message: str = "", *, source: str | None = None, index: int | None = None) -> None:
        super().__init__(message)
        self.source = source
        self.index = index
        self.add_note(f"[{self.where_explained()}]")

    @property
    def message(self) -> str:
        """The text, without the class name."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:  # the OSError kin would print "[Errno …]" otherwise
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.source, self.index))

    @classmethod
    def where_explained(cls) -> str:
        """The file and heading, from the root of the repository, on this kind of error."""
        ours = next(base for base in cls.__mro__ if base.__module__ == __name__)
        return f"docs/troubleshooting.md#{ours.__name__.lower()}"

    def _render_traceback_(self) -> list[str]:
        """IPython prints this in place of a traceback: one line, whatever a file or server calls itself."""
        line = f"{type(self).__name__}: {self.message} [{self.where_explained()}]"
        return ["".join(map(_inert, line))]


def _inert(character: str) -> str:
    """A control or direction character as its code, a line end as a blank; anything else as it is."""
    if character in "\r\n\t\v\f":
        return " "
    control = unicodedata.category(character) == "Cc" or "\u202a" <= character <= "\u202e"
    return f"\\x{ord(character):02x}" if control else character


def _rebuild(cls: type[VLMError], message: str, source: str | None, index: int | None) -> VLMError:
    return cls(message, source=source, index=index)


class SourceError(VLMError, ValueError):
    """An image could not be read."""


class SourceNotFound(SourceError, FileNotFoundError):
    """No such file, an empty folder, or a glob without a match."""


class ImageTooLarge(SourceError):
    """An image has more pixels, or a download more bytes, than allowed."""


class OptionError(VLMError, ValueError):
    """An unknown option, keyword or generation key, or a value that it cannot take."""


class PromptError(VLMError, ValueError):
    """A prompt that cannot be used as it is."""


class NoModelLoaded(VLMError, RuntimeError):
    """A list, folder or table was to be answered and no model is loaded."""


class ModelUnloaded(VLMError, RuntimeError):
    """The model was unloaded while a request was open, or is used after it was unloaded."""


class LoadError(VLMError, RuntimeError):
    """A model could not be loaded."""


class ModelNotFound(LoadError, FileNotFoundError):
    """No such folder, repository or revision."""


class ModelAccessDenied(LoadError, PermissionError):
    """A gated or private repository, or a token without the right to read it."""


class DownloadError(LoadError, OSError):
    """The network is off or failed before every file had arrived."""


class UnsafeModel(LoadError):
    """Weights in pickle files, or a model that needs its own code to run."""


class QuantizationUnavailable(LoadError):
    """bitsandbytes, or the device, cannot do the asked quantisation."""


class MissingDependency(LoadError, ImportError):
    """An optional package is needed; the message names the command that installs it."""


class OutOfMemory(VLMError, MemoryError):
    """Loading or generating needs more memory than there is; the text says "out of memory"."""


class CapabilityError(VLMError, NotImplementedError):
    """The engine or the model cannot do what was asked."""


class GenerationError(VLMError, RuntimeError):
    """The engine failed while it answered."""


class Cancelled(GenerationError):
    """The caller cancelled before the answer was complete."""


class ContextTooLong(GenerationError, ValueError):
    """Prompt and images need more tokens than the model's context holds."""


class SchemaError(GenerationError, ValueError):
    """A schema that cannot be used, or a structured answer cut before it was complete."""


class ServerError(GenerationError):
    """A remote engine answered with an error, or not at all."""


class LedgerError(VLMError, OSError):
    """The store of finished rows cannot be opened or written."""


def nearest(name: str, allowed: Iterable[str], *, count: int = 3) -> list[str]:
    """Return up to ``count`` of ``allowed`` that look like ``name``, best first."""
    by_lower = {item.lower(): item for item in allowed}
    return [by_lower[hit] for hit in difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=0.5)]


def unknown_option(kind: str, name: str, allowed: Iterable[str]) -> OptionError:
    """Build the error for an unknown ``kind`` ("load keyword", "generation key", …) called ``name``."""
    options = sorted(allowed)
    close = nearest(name, options)
    hint = f"did you mean {', '.join(close)}?" if close else f"allowed are: {', '.join(options)}."
    return OptionError(f"unknown {kind} {name!r}; {hint}")
