"""A small chat server on loopback: OpenAI's protocol over a real socket, answers written by tests."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image
from quiet_handler import QuietHandler

Answer = Callable[[dict[str, Any]], Any]


class QuietServer(ThreadingHTTPServer):
    """Many short connections at once; a client that goes away is no news."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port; yields "http://127.0.0.1:PORT"."""
    server = QuietServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def prompt_of(body: dict[str, Any]) -> str:
    """The text of the last message."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def images_of(body: dict[str, Any]) -> list[Image.Image]:
    """The images of all messages, decoded."""
    found = []
    for message in body["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else []:
            if part["type"] == "image_url":
                payload = part["image_url"]["url"].partition("base64,")[2]
                found.append(Image.open(io.BytesIO(base64.b64decode(payload))))
    return found


@dataclass
class Chat:
    """What the server answers and what it saw.

    ``answer`` gets the request's JSON; it returns a text, which is streamed word by word, or a ``Raw`` reply.
    """

    answer: Answer = lambda body: f"echo {prompt_of(body)}"
    owner: str = "vllm"
    models: tuple[str, ...] = ("tiny",)
    key: str | None = None
    delay: float = 0.0
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    open_now: int = 0
    most_open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def model_list(self) -> dict[str, Any]:
        entries = [
            {"id": name, "object": "model", "owned_by": self.owner, "max_model_len": 1024}
            for name in self.models
        ]
        return {"object": "list", "data": entries}


@dataclass(frozen=True)
class Raw:
    """A reply that is no streamed answer: an error, or nonsense."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def chat_server(**settings: Any) -> Iterator[Chat]:
    """Serve a ``Chat`` made of ``settings``; its ``url`` ends with /v1."""
    chat = Chat(**settings)

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            if self._allowed():
                listed = self.path == "/v1/models"
                self._reply(
                    chat.model_list() if listed else {"error": "no such page"}, 200 if listed else 404
                )

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with chat.lock:
                chat.bodies.append(body)
                chat.headers.append({name.lower(): value for name, value in self.headers.items()})
                chat.open_now += 1
                chat.most_open = max(chat.most_open, chat.open_now)
            try:
                if self._allowed():
                    self._answer(body)
            finally:
                with chat.lock:
                    chat.open_now -= 1

        def _allowed(self) -> bool:
            sent = self.headers.get("Authorization", "")
            if chat.key is None or sent == f"Bearer {chat.key}":
                return True
            self._reply({"error": {"message": f"wrong key {sent}"}}, 401)
            return False

        def _answer(self, body: dict[str, Any]) -> None:
            answer = chat.answer(body)
            if isinstance(answer, Raw):
                self._reply(answer.body, answer.status, answer.headers)
                return
            try:
                self._stream(answer, body)
                chat.finished.append(prompt_of(body))
            except OSError:
                chat.broken.append(prompt_of(body))

        def _stream(self, answer: Any, body: dict[str, Any]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in events(answer, body):
                time.sleep(chat.delay)
                self._chunk(f"data: {json.dumps(event)}\n\n")
            self._chunk("data: [DONE]\n\n")
            self._chunk("")

        def _chunk(self, text: str) -> None:
            data = text.encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

        def _reply(self, body: Any, status: int, headers: dict[str, str] | None = None) -> None:
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with serving(Handler) as url:
        chat.url = f"{url}/v1"
        yield chat


def events(answer: Any, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The chunks of one answer: its words up to ``max_tokens``, the ending, the usage.

    A list is taken as the chunks' deltas and endings, as they are.
    """
    base = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": body["model"]}
    if isinstance(answer, list):
        for choice in answer:
            yield {**base, "choices": [{"index": 0, **choice}]}
        return
    words = re.findall(r"\s*\S+|\s+$", answer)
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    for word in words[:limit]:
        yield {**base, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
    ending = "length" if len(words) > limit else "stop"
    yield {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": ending}]}
    usage = {"prompt_tokens": 7, "completion_tokens": min(len(words), limit), "total_tokens": 0}
    yield {**base, "choices": [], "usage": usage}
