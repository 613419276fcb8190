"""One image, not yet read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import SourceError

Kind = Literal["path", "url", "bytes", "image", "array"]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One image, not yet read.

    ``label`` is what users and logs see (a path, a URL without credentials and query, "PIL image 640×480");
    ``payload`` is a Path, a URL, bytes, a PIL image or an array, as ``kind`` says.
    """

    label: str
    kind: Kind
    payload: Any = field(repr=False)


Item = Source | SourceError
