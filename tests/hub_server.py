"""A small server on loopback that speaks as much of the Hugging Face hub's API as downloading needs."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from quiet_handler import QuietHandler

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """One repository. ``gated`` is the status (401, 403) it answers without the right ``token``."""

    files: dict[str, bytes]
    commit: str = COMMIT
    gated: int | None = None
    token: str | None = None
    cut_file: str = "model.safetensors"
    cut_after: int | None = None  # bytes of that file that arrive before the connection breaks…
    cut_for_good: bool = False  # …and whether nothing comes any more after that
    delay: float = 0.0
    served: list[tuple[str, str, int]] = field(default_factory=list)  # method, file, first byte


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.down = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def go_down(self) -> None:
        self.down = True
        self.shutdown()
        self.server_close()

    def add(self, name: str, folder: Path, **options: Any) -> Repo:
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        self.repos[name] = Repo(files, **options)
        return self.repos[name]


class Handler(QuietHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        if self.server.down:  # connections that were open before as well
            return self.break_off()
        path = self.path.split("?")[0]
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name, revision = (api or file).group(1, 2) if api or file else ("", None)
        repo = self.server.repos.get(name)
        if repo is None:
            return self.refuse(404, "RepoNotFound", "Repository not found")
        authorization = self.headers.get("Authorization", "")
        if repo.gated and (repo.token is None or authorization != f"Bearer {repo.token}"):
            return self.refuse(repo.gated, "GatedRepo", f"Access to model {name} is restricted.")
        if revision not in (None, "main", repo.commit):
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if api:
            return self.listing(name, repo)
        return self.file(repo, file.group(3), body=body)

    def refuse(self, status: int, code: str, message: str) -> None:
        payload = json.dumps({"error": message}).encode()
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(payload)

    def listing(self, name: str, repo: Repo) -> None:
        siblings = [
            {"rfilename": file, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
            for file, data in repo.files.items()
        ]
        payload = json.dumps({"id": name, "modelId": name, "sha": repo.commit, "siblings": siblings}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def file(self, repo: Repo, name: str, *, body: bool) -> None:
        data = repo.files.get(name)
        if data is None:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked.group(1)) if asked else 0
        repo.served.append((self.command, name, start))
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", repo.commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body:
            self.send(repo, name, data[start:], start)

    def send(self, repo: Repo, name: str, data: bytes, start: int) -> None:
        cut = repo.cut_after if name == repo.cut_file else None
        if cut is not None and start < cut:
            self.trickle(data[: cut - start], repo.delay)
        if cut is not None and (start < cut or repo.cut_for_good):
            return self.break_off()
        self.trickle(data, repo.delay if name.endswith(".safetensors") else 0.0)

    def break_off(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def trickle(self, data: bytes, delay: float) -> None:
        step = 16384 if delay else max(len(data), 1)
        try:
            for at in range(0, len(data), step):
                self.wfile.write(data[at : at + step])
                self.wfile.flush()
                if delay:
                    threading.Event().wait(delay)
        except OSError:  # the client went away: it was cancelled
            self.close_connection = True


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port of loopback."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.go_down()
        thread.join(5)
