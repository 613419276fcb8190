"""Checkpoints from the Hugging Face hub: what is there, downloading with progress and cancel, errors in plain words.

Files are fetched by a few daemon threads of our own: huggingface_hub's pool would keep the interpreter from
exiting until a download of gigabytes has ended.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ...errors import Cancelled, DownloadError, LoadError, ModelAccessDenied, ModelNotFound
from ..base import Progress, raise_if_cancelled
from .files import Checkpoint, local_checkpoint, require, small_files

WORKERS = 4
POLL_SECONDS = 0.1
TIMEOUT = 30.0
Report = Callable[[Progress], None]


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
            raise ModelNotFound(f"{name}: {what}. Give a folder with config.json, or a hub id such as org/name.")
        raise_if_cancelled(self._cancelled)
        try:
            look = self._from_cache if self._offline() else self._from_hub
            return look(name, revision, needs)
        except Exception as error:
            raise plain(error, name, revision) from None

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
            if not _unreachable(error):
                raise
            return self._from_cache(name, revision, needs, because=error)
        sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}

        def fetch(names: Iterable[str]) -> None:
            self._fetch(name, revision or "main", info.sha, {n: sizes[n] for n in names}, marker=needs)

        listing = Checkpoint(name=name, folder=Path(), sizes=sizes, revision=info.sha)
        require(listing, needs)
        fetch(small_files(sizes, code=self._code))
        folder = cached_folder(name, info.sha)
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
                f"({'local_files_only' if self._local_only else 'HF_HUB_OFFLINE'}). Load it once while online."
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
        meter = _Meter(f"downloading {name}", sum(sizes.values()), sum(sizes[n] for n in have), self._cancelled)

        def fetch_one(file: str) -> None:
            # The branch's own name with one file only: huggingface_hub then notes its commit, for offline use.
            version = revision if file == marker else at
            bar: Any = meter.bar()
            hf_hub_download(name, file, revision=version, token=self._token, tqdm_class=bar)

        try:
            _in_threads(fetch_one, todo, meter, self._progress)
        except Exception as error:
            raise plain(error, name, revision) from None


class _Meter:
    """Counts the bytes of several downloads, and stops them."""

    def __init__(self, text: str, total: int, done: int, cancelled: threading.Event) -> None:
        self.text, self.total, self.done = text, total, float(done)
        self.stop = threading.Event()
        self.cancelled = cancelled
        self._lock = threading.Lock()

    def add(self, count: float) -> None:
        if self.stop.is_set() or self.cancelled.is_set():
            raise Cancelled("loading was cancelled.")
        with self._lock:
            self.done += count

    def report(self) -> Progress:
        return Progress(text=self.text, done=min(self.done, self.total), total=float(self.total))

    def bar(self) -> type:
        """A class that huggingface_hub takes for a progress bar."""
        add = self.add

        class Bar:
            def __init__(self, *args: Any, initial: float = 0, total: float | None = None, **kwargs: Any) -> None:
                self.n, self.total = initial, total
                add(initial or 0)

            def update(self, count: float | None = 1) -> None:
                add(count or 0)

            def update_transfer(self, count: float | None = 1) -> None:
                """The same bytes as seen by the network; counted once."""

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *exception: object) -> None:
                """Nothing to close."""

            def __getattr__(self, name: str) -> Any:
                return lambda *args, **kwargs: None

        return Bar


def _in_threads(work: Callable[[str], None], names: list[str], meter: _Meter, progress: Report) -> None:
    """Run ``work`` on each of ``names`` in daemon threads; report and watch for cancel from this one."""
    todo: SimpleQueue[str] = SimpleQueue()
    failures: list[BaseException] = []
    for name in names:
        todo.put(name)

    def run() -> None:
        with suppress(Empty):
            while not meter.stop.is_set():
                name = todo.get_nowait()
                try:
                    work(name)
                except BaseException as error:  # noqa: BLE001 - carried to the thread that waits
                    failures.append(error)
                    meter.stop.set()

    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(WORKERS, len(names)))]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            raise_if_cancelled(meter.cancelled)
            progress(meter.report())
            threads[0].join(POLL_SECONDS) if threads[0].is_alive() else time.sleep(POLL_SECONDS)
    finally:
        meter.stop.set()
    if failures:
        raise failures[0]
    if names:
        progress(meter.report())


def cached_folder(name: str, revision: str) -> Path:
    """Where huggingface_hub's cache keeps the files of ``name`` at a commit, branch or tag."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(name)
    storage = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
    ref = storage / "refs" / revision
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
    return storage / "snapshots" / commit


def looks_like_path(name: str) -> bool:
    """Whether ``name`` can only be meant as a path: no hub id looks so."""
    start = name.startswith((".", "/", "~", "\\")) or "\\" in name or name.count("/") > 1 or name.endswith("/")
    return start or Path(name).is_file()


def _unreachable(error: BaseException) -> bool:
    """Whether the hub could not be asked at all (the network is down, or the server is)."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        status = getattr(error.response, "status_code", 0) or 0
        return bool(status >= 500)
    from_network = type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "requests", "urllib3")
    return from_network or isinstance(error, OfflineModeIsEnabled | ConnectionError | TimeoutError)


def plain(error: BaseException, name: str, revision: str | None) -> BaseException:
    """Return ``error`` of the hub as one of ours. Neither tokens nor signed addresses get into the message."""
    from huggingface_hub import errors as hub

    if isinstance(error, LoadError | Cancelled):
        return error
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, hub.GatedRepoError | hub.LocalTokenNotFoundError | hub.DisabledRepoError):
        return _denied(name, error)
    if isinstance(error, hub.RevisionNotFoundError):
        return ModelNotFound(f"{name} has no revision {revision!r}; see https://huggingface.co/{name}/commits/main")
    if isinstance(error, hub.RepositoryNotFoundError | hub.HFValidationError):
        return ModelNotFound(
            f"no model {name!r} on the hub, and no such local folder. Check the spelling; if it is private, log in "
            "with `hf auth login` or pass token=..."
        )
    if isinstance(error, hub.EntryNotFoundError) and not isinstance(error, hub.LocalEntryNotFoundError):
        return ModelNotFound(f"{name}: a listed file is gone from the hub; try again, or give another revision.")
    if status in (401, 403):
        return _denied(name, error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return DownloadError(f"{name}: the disk is full. Free some space (`hf cache ls`) and load again.")
    reason = f"HTTP {status}" if status else type(error).__name__
    return DownloadError(
        f"{name} could not be downloaded ({reason}). Check the network and load again: what has arrived is kept, "
        "and the download goes on from there."
    )


def _denied(name: str, error: BaseException) -> ModelAccessDenied:
    from huggingface_hub.errors import LocalTokenNotFoundError

    if isinstance(error, LocalTokenNotFoundError):
        return ModelAccessDenied(f"{name}: token=True, but no token is stored; run `hf auth login`.")
    return ModelAccessDenied(
        f"access to {name} was refused. Ask for access on https://huggingface.co/{name}, then log in with "
        "`hf auth login`, set HF_TOKEN, or pass token=... (a token that may read this repository)."
    )
