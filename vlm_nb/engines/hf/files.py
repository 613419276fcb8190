"""The files of a checkpoint: which there are, which are needed, which are missing or unsafe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import LoadError, ModelNotFound, UnsafeModel

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER = "adapter_model.safetensors"
SMALL = (".json", ".jinja", ".txt", ".model", ".tiktoken")
MAX_HEADER = 100_000_000
"""Bytes; the limit of the safetensors format."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
TEMPLATE_FOLDERS = ("additional_chat_templates", "chat_templates")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose small files lie in ``folder``.

    ``sizes`` maps every file of the folder or the repository to its size in bytes; ``fetch`` brings the named
    files into the folder (a local folder has them already). ``revision`` is the commit of a repository.
    """

    name: str
    folder: Path
    sizes: Mapping[str, int]
    revision: str | None = None
    fetch: Callable[[Iterable[str]], None] | None = None

    @property
    def weights(self) -> list[str]:
        """The weight files. Raises UnsafeModel for pickles only, ModelNotFound for none."""
        if INDEX in self.sizes:
            shards = set(self.json(INDEX).get("weight_map", {}).values())
            if missing := sorted(shards - set(self.sizes)):
                raise ModelNotFound(f"{self.name}: the weights are incomplete; missing: {some(missing)}.")
            return sorted(shards)
        if SINGLE in self.sizes:
            return [SINGLE]
        raise self._no_weights()

    @property
    def weight_bytes(self) -> int:
        """The size of the weight files together."""
        return sum(self.sizes[name] for name in self.weights)

    def json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the folder; an absent one is empty. Raises LoadError for a damaged one."""
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LoadError(f"{self.name}: {name} cannot be read as JSON ({error}).") from None
        if not isinstance(content, dict):
            raise LoadError(f"{self.name}: {name} holds no JSON object.")
        return content

    def bring_weights(self) -> None:
        """Download the weights if they are not there.

        Raises as ``weights`` does, DownloadError and Cancelled.
        """
        self.bring(self.weights)

    def check_weights(self) -> None:
        """Raise LoadError for a weight file that is cut off or no safetensors file: only headers are read."""
        for name in self.weights:
            if damage := _damage(self.folder / name):
                raise LoadError(
                    f"{self.name}: a weight file is damaged: {name} {damage}. Delete it, and load again to "
                    "fetch it."
                )

    def bring(self, names: Iterable[str]) -> None:
        """Download the named files, those that the checkpoint has."""
        if self.fetch is not None:
            self.fetch([name for name in names if name in self.sizes])

    @property
    def fingerprint(self) -> str:
        """The commit, or a hash of the files' names, sizes and times."""
        if self.revision:
            return self.revision
        digest = hashlib.sha256()
        for name in sorted(self.sizes):
            stat = (self.folder / name).stat()
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return f"files-{digest.hexdigest()[:24]}"

    def _no_weights(self) -> LoadError:
        pickles = sorted(name for name in self.sizes if name.endswith(PICKLES) and "/" not in name)
        if ADAPTER in self.sizes:
            return LoadError(
                f"{self.name} is a PEFT adapter; load the model it was trained on with adapter={self.name!r}."
            )
        if pickles:
            return UnsafeModel(
                f"{self.name} has its weights as pickle files only ({some(pickles)}), which can run any "
                "code when they are opened. Use a revision or a repository with .safetensors files, or, if "
                "you trust it, convert it once with model.save_pretrained(folder) and load that folder."
            )
        return ModelNotFound(f"{self.name} holds no weights: neither {SINGLE} nor {INDEX} is there.")


def local_checkpoint(name: str, folder: Path, needs: str = "config.json") -> Checkpoint:
    """The checkpoint in a local folder. Raises ModelNotFound where the file ``needs`` is not there."""
    sizes = {p.relative_to(folder).as_posix(): p.stat().st_size for p in _files(folder)}
    checkpoint = Checkpoint(name=name, folder=folder, sizes=sizes)
    require(checkpoint, needs)
    return checkpoint


def _damage(path: Path) -> str:
    """What is wrong with a safetensors file, by its size and its header: 8 bytes of length, then JSON."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: Any = json.loads(stream.read(length)) if 0 < length <= min(size, MAX_HEADER) else None
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    except (OSError, ValueError, AttributeError, TypeError, LookupError):
        return "cannot be read as safetensors"
    missing = 8 + length + max(ends, default=0) - size
    return f"is {missing:,} bytes too short" if missing > 0 else ""


def _files(folder: Path) -> list[Path]:
    nested = [p for sub in TEMPLATE_FOLDERS for p in (folder / sub).glob("*") if p.is_file()]
    return [p for p in folder.iterdir() if p.is_file()] + nested


def require(checkpoint: Checkpoint, name: str) -> None:
    """Raise the fitting error unless the checkpoint has the file ``name``."""
    if name in checkpoint.sizes:
        return
    if name == "config.json" and ADAPTER in checkpoint.sizes:
        raise checkpoint._no_weights()
    there = ", ".join(sorted(checkpoint.sizes)[:8]) or "nothing"
    raise ModelNotFound(
        f"{checkpoint.name} has no {name}, so it is no model that can be loaded; it holds {there}."
    )


def small_files(names: Iterable[str], *, code: bool) -> list[str]:
    """The files beside the weights that loading reads; Python files only with ``code``."""
    suffixes = (*SMALL, ".py") if code else SMALL
    return [
        n
        for n in names
        if n.endswith(suffixes) and (code or "/" not in n or n.split("/")[0] in TEMPLATE_FOLDERS)
    ]


def some(names: list[str], count: int = 3) -> str:
    """The first few of ``names`` for a message."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
