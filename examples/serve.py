"""Serve one model with OpenAI's chat interface, standard library only: ``python examples/serve.py demo``.

For trying the ``openai`` engine where there is no server. It listens on this machine alone, without keys;
many requests at once are answered in one batch. Serve real work with vLLM, SGLang or ``transformers serve``.
"""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import vlm_nb
from vlm_nb import demo

if TYPE_CHECKING:
    from vlm_nb import VLM, Prediction

KEYS = {"max_tokens": "max_new_tokens", "temperature": "temperature", "top_p": "top_p", "seed": "seed"}
"""OpenAI's names of the settings that count here → ours."""


class Server(ThreadingHTTPServer):
    """Holds the model that all requests share."""

    daemon_threads = True

    def __init__(self, model: VLM, port: int) -> None:
        self.model = model
        super().__init__(("127.0.0.1", port), Handler)

    def listed(self) -> dict[str, Any]:
        """The model list. ``root`` tells a client on this machine where the model's own files are."""
        root = str(demo.weights_path()) if self.model.is_demo else self.model.name
        return {"object": "list", "data": [{"id": self.model.name, "object": "model", "root": root}]}

    def answered(self, body: dict[str, Any]) -> Prediction:
        """Answer the messages of a chat request. Raises a VLMError."""
        settings = {ours: body[name] for name, ours in KEYS.items() if body.get(name) is not None}
        (outcome,) = self.model.generate([body], show_progress=False, ledger=False, **settings)
        if outcome.result is None:
            raise outcome.error
        return outcome.result


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        known = self.path.rstrip("/") == "/v1/models"
        self._reply(self.server.listed() if known else _problem("no such page"), 200 if known else 404)

    def do_POST(self) -> None:
        try:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = self.server.answered(body)
        except (vlm_nb.VLMError, ValueError, KeyError, TypeError) as error:
            return self._reply(_problem(str(error)), 400)
        if body.get("stream"):
            return self._stream(_completion(body, answer, "delta"))
        return self._reply(_completion(body, answer, "message"), 200)

    def _reply(self, content: dict[str, Any], status: int) -> None:
        self._send(json.dumps(content).encode(), "application/json", status)

    def _stream(self, content: dict[str, Any]) -> None:
        """The whole answer as one event: the model's own stream ends here."""
        self._send(f"data: {json.dumps(content)}\n\ndata: [DONE]\n\n".encode(), "text/event-stream", 200)

    def _send(self, data: bytes, kind: str, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a server's log belongs to who started it."""


def _completion(body: dict[str, Any], answer: Prediction, holder: str) -> dict[str, Any]:
    usage = answer.usage
    choice = {
        "index": 0,
        holder: {"role": "assistant", "content": answer.raw},
        "finish_reason": "length" if usage.finish_reason == "length" else "stop",
    }
    counts = {"prompt_tokens": usage.prompt_tokens or 0, "completion_tokens": usage.new_tokens or 0}
    counts["total_tokens"] = sum(counts.values())
    kind = "chat.completion.chunk" if holder == "delta" else "chat.completion"
    named = {"id": "answer", "object": kind, "created": 0, "model": body.get("model", "")}
    return {**named, "choices": [choice], "usage": counts}


def _problem(text: str) -> dict[str, Any]:
    return {"error": {"message": text, "type": "invalid_request_error"}}


def main() -> None:
    """Command line; prints the address when the model answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    options = parser.parse_args()
    server = Server(vlm_nb.load(options.model), options.port)
    print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        vlm_nb.unload()


if __name__ == "__main__":
    main()
