"""Finding a checkpoint by name: in a local folder, on the Hugging Face hub, or in the hub's cache."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import DownloadError, ModelNotFound
from ..base import Progress, raise_if_cancelled
from .download import Meter, Report, in_threads
from .failures import from_hub, unreachable
from .files import Checkpoint, local_checkpoint, require, small_files

TIMEOUT = 30.0


class HubSource:
    """Finds checkpoints by name: a local folder, or a repository of the hub."""

    def __init__(
        self,
        *,
        token: str | bool | None = None,
        local_files_only: bool = False,
        code: bool = False,
        progress: Report,
        cancelled: threading.Event,
    ) -> None:
        self._token = token
        self._local_only = local_files_only
        self._code = code
        self._progress = progress
        self._cancelled = cancelled

    def find(self, name: str, revision: str | None = None, *, needs: str = "config.json") -> Checkpoint:
        """Return the checkpoint ``name``, which must have the file ``needs``, with its small files on disk.

        Raises a LoadError or Cancelled.
        """
        folder = Path(name).expanduser()
        if folder.is_dir():
            return local_checkpoint(name, folder, needs)
        if looks_like_path(name):
            what = "is a file; give the folder it lies in" if folder.is_file() else "no such folder"
            raise ModelNotFound(
                f"{name}: {what}. Give a folder with config.json, or a hub id such as org/name."
            )
        raise_if_cancelled(self._cancelled)
        try:
            look = self._from_cache if self._offline() else self._from_hub
            return look(name, revision, needs)
        except Exception as error:  # noqa: BLE001 - the network fails in many ways
            raise from_hub(error, name, revision) from None

    def _offline(self) -> bool:
        from huggingface_hub import constants

        return self._local_only or constants.HF_HUB_OFFLINE

    def _from_hub(self, name: str, revision: str | None, needs: str) -> Checkpoint:
        from huggingface_hub import HfApi

        self._progress(Progress(text=f"looking up {name}"))
        try:
            info = HfApi(token=self._token).model_info(
                name, revision=revision, files_metadata=True, timeout=TIMEOUT
            )
        except Exception as error:
            if not unreachable(error):
                raise
            return self._from_cache(name, revision, needs, because=error)
        sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}

        def fetch(names: Iterable[str]) -> None:
            self._fetch(name, revision or "main", info.sha, {n: sizes[n] for n in names}, marker=needs)

        listing = Checkpoint(name=name, folder=Path(), sizes=sizes, revision=info.sha)
        require(listing, needs)
        fetch(small_files(sizes, code=self._code))
        folder = cached_folder(name, info.sha or revision or "main")
        return Checkpoint(name=name, folder=folder, sizes=sizes, revision=info.sha, fetch=fetch)

    def _from_cache(
        self, name: str, revision: str | None, needs: str, because: Exception | None = None
    ) -> Checkpoint:
        folder = cached_folder(name, revision or "main")
        if not (folder / needs).is_file():
            if because is not None:
                raise because
            raise DownloadError(
                f"{name} is not in the local cache, and downloads are off "
                f"({'local_files_only' if self._local_only else 'HF_HUB_OFFLINE'}). Load it once while "
                "online."
            )
        local = local_checkpoint(name, folder, needs)
        return Checkpoint(name=name, folder=folder, sizes=local.sizes, revision=folder.name)

    def _fetch(
        self, name: str, revision: str, commit: str | None, sizes: dict[str, int], *, marker: str
    ) -> None:
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        at = commit or revision
        have = {n for n in sizes if isinstance(try_to_load_from_cache(name, n, revision=at), str)}
        todo = [n for n in sizes if n not in have]
        meter = Meter(
            f"downloading {name}", sum(sizes.values()), sum(sizes[n] for n in have), self._cancelled
        )

        def fetch_one(file: str) -> None:
            # The branch's own name with one file only: huggingface_hub then notes its commit, for offline
            # use.
            version = revision if file == marker else at
            bar: Any = meter.bar()
            hf_hub_download(name, file, revision=version, token=self._token, tqdm_class=bar)

        try:
            in_threads(fetch_one, todo, meter, self._progress)
        except Exception as error:  # noqa: BLE001 - the network fails in many ways
            raise from_hub(error, name, revision) from None


def cached_folder(name: str, revision: str) -> Path:
    """Where huggingface_hub's cache keeps the files of ``name`` at a commit, branch or tag."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils._validators import validate_repo_id

    validate_repo_id(name)
    storage = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
    ref = storage / "refs" / revision
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
    return storage / "snapshots" / commit


def looks_like_path(name: str) -> bool:
    """Whether ``name`` can only be meant as a path: no hub id looks so."""
    start = (
        name.startswith((".", "/", "~", "\\")) or "\\" in name or name.count("/") > 1 or name.endswith("/")
    )
    return start or Path(name).is_file()
