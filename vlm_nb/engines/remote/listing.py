"""Which models a server offers, and what its list tells about the one that was asked for."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import LoadError, ModelAccessDenied, ModelNotFound, nearest
from ..base import ModelInfo
from ..hf.files import local_checkpoint
from .dialects import DIALECTS, dialect_of

if TYPE_CHECKING:
    from ..spec import LoadSpec

WAKING_TRIES = 30
WAKING_SECONDS = 1.0
"""A server that answers 503 is still loading its model: it is asked again for half a minute."""
NO_LIST = (404, 405, 500, 501)
"""`transformers serve` says 500 where there is no Hugging Face cache, and answers chats all the same."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One line of a server's model list. ``root`` is the folder or hub id behind an alias, if it tells."""

    name: str
    owner: str | None = None
    root: str | None = None
    context_length: int | None = None


async def fetch(client: Any) -> list[ServedModel]:
    """Return the models of the server; empty where it has no list. Raises LoadError."""
    for waited in range(WAKING_TRIES + 1):
        try:
            page = await client.api.models.list()
        except Exception as error:  # noqa: BLE001 - every kind is read below
            status = getattr(error, "status_code", None)
            text = client.failure(error, "").error.message
        else:
            return _served(page)
        if status in NO_LIST:
            return []
        if status != 503 or waited == WAKING_TRIES:
            break
        await asyncio.sleep(WAKING_SECONDS)
    if status in (401, 403):
        raise ModelAccessDenied(f"{text.rstrip('.')}. Pass api_key=..., or set the server's key variable.")
    hint = "" if status else ". Is the server running, and is base_url right?"
    raise LoadError(f"{text.rstrip('.')}{hint}")


def _served(page: Any) -> list[ServedModel]:
    data = getattr(page, "data", None)
    entries = data if isinstance(data, list) else []
    return [_entry(entry) for entry in entries if isinstance(getattr(entry, "id", None), str)]


def _entry(entry: Any) -> ServedModel:
    def text(name: str) -> str | None:
        value = getattr(entry, name, None)
        return value if isinstance(value, str) and value else None

    length = getattr(entry, "max_model_len", None)
    context = length if isinstance(length, int) else None
    return ServedModel(entry.id, text("owned_by"), text("root"), context)


def chosen(model: str, offered: list[ServedModel], kind: str | None) -> tuple[ServedModel | None, str]:
    """Return the entry of ``model`` (None if the list lacks it) and the kind of server.

    Lists of many servers leave aliases out, so a missing name is an error only where the list is known to be
    complete. Raises ModelNotFound.
    """
    found = next((one for one in offered if model in (one.name, one.name.removeprefix("models/"))), None)
    owner = (found or (offered[0] if offered else ServedModel(""))).owner
    server = kind or dialect_of(owner)
    if found is None and offered and DIALECTS[server].complete_list:
        names = [one.name for one in offered]
        close = nearest(model, names) or names[:3]
        raise ModelNotFound(f"the server has no model {model!r}; it offers {', '.join(close)}.")
    return found, server


def info_of(spec: LoadSpec, url: str, served: ServedModel | None, server: str) -> ModelInfo:
    """Return what is known about the model; its own files are read where it is a folder of this machine."""
    root = (served.root if served else None) or spec.model
    model_type = _json(Path(root) / "config.json").get("model_type")
    facts = image_facts(_json(Path(root) / "preprocessor_config.json"))
    facts["min_pixels"] = spec.min_pixels or facts.get("min_pixels")
    facts["max_pixels"] = spec.max_pixels or facts.get("max_pixels")
    return ModelInfo(
        name=spec.model,
        model_type=model_type if isinstance(model_type, str) else None,
        device=url,
        fingerprint=_fingerprint(url, root),
        context_length=served.context_length if served else None,
        details={"server": server, "served as": root},
        **facts,
    )


def _fingerprint(url: str, root: str) -> str:
    """The server's address and model, and the files' state where they are on this machine."""
    state = ""
    with contextlib.suppress(LoadError, OSError):
        state = local_checkpoint(root, Path(root)).fingerprint
    return " ".join(part for part in (url, root, state) if part)


def image_facts(processor: dict[str, Any]) -> dict[str, Any]:
    """Return what a ``preprocessor_config.json`` says about sizes, as ``ModelInfo`` names it.

    For models that take images of any size: ``patch`` (patch × merge size) and the bounds of the area, which
    newer files call ``shortest_edge`` and ``longest_edge`` of ``size`` although they are areas.
    """
    given = processor.get("size")
    size: dict[str, Any] = given if isinstance(given, dict) else {}
    patch, merge = processor.get("patch_size"), processor.get("merge_size")
    if isinstance(patch, int) and isinstance(merge, int):
        smallest = processor.get("min_pixels") or size.get("shortest_edge")
        largest = processor.get("max_pixels") or size.get("longest_edge")
        return {"patch": patch * merge, "min_pixels": smallest, "max_pixels": largest}
    fixed = processor.get("crop_size") if isinstance(processor.get("crop_size"), dict) else size
    if fixed and "width" in fixed and "height" in fixed:
        return {"image_size": (int(fixed["width"]), int(fixed["height"]))}
    return {}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
