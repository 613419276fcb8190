"""A proxy before any chat server that spoils some of its answers, by a plan.

As a command, to try a server by hand:  python tests/fault_proxy.py http://127.0.0.1:8000/v1 --share 0.3
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from chat_server import serving
from quiet_handler import QuietHandler

FAULTS = ("429", "500", "hang", "cut", "garbage", "slow")
Plan = Callable[[int], str | None]
"""The number of the request (from 0) → the fault, None for none."""


@dataclass
class FaultProxy:
    """``url`` ends with /v1. ``delivered`` counts the complete good answers by the body that asked."""

    upstream: str
    plan: Plan
    retry_after: float = 0.05
    hang_seconds: float = 30.0
    url: str = ""
    faults: Counter[str] = field(default_factory=Counter)
    delivered: Counter[bytes] = field(default_factory=Counter)
    requests: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self) -> str | None:
        with self.lock:
            fault = self.plan(self.requests)
            self.requests += 1
            self.faults[fault or "none"] += 1
            return fault


def seeded(share: float, seed: int = 0) -> Plan:
    """A plan that spoils ``share`` (0..1) of the requests, every kind of fault as often."""
    source = random.Random(seed)
    return lambda _: source.choice(FAULTS) if source.random() < share else None


@contextmanager
def fault_proxy(upstream: str, plan: Plan, **settings: Any) -> Iterator[FaultProxy]:
    """Serve a proxy before ``upstream`` ("http://host:port/v1")."""
    proxy = FaultProxy(upstream, plan, **settings)

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self._forward(b"", None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            fault = proxy.next_fault()
            if fault in ("429", "500"):
                self._refuse(int(fault))
            elif fault == "garbage":
                self._send(200, b'data: {"oops": tru\n\ndata: [DONE]\n\n', "text/event-stream")
            elif fault == "hang":
                proxy.over.wait(proxy.hang_seconds)
                self.close_connection = True
            elif self._forward(body, fault):
                with proxy.lock:
                    proxy.delivered[body] += 1

        def _refuse(self, status: int) -> None:
            extra = {"Retry-After": f"{proxy.retry_after}"} if status == 429 else {}
            self._send(status, json.dumps({"error": {"message": f"fault {status}"}}).encode(), **extra)

        def _send(self, status: int, data: bytes, kind: str = "application/json", **extra: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **extra}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data)

        def _forward(self, body: bytes, fault: str | None) -> bool:
            """Pass the request on; returns whether the whole answer reached the client."""
            target = urlsplit(proxy.upstream)
            upstream = http.client.HTTPConnection(target.hostname or "", target.port, timeout=300)
            try:
                sent = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                upstream.request(self.command, self.path, body, sent)
                return self._pass_back(upstream.getresponse(), fault)
            finally:
                upstream.close()

        def _pass_back(self, answer: http.client.HTTPResponse, fault: str | None) -> bool:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            pieces = 0
            while piece := answer.read1(65536):
                pieces += 1
                if fault == "slow":
                    time.sleep(0.02)
                if fault == "cut" and pieces == 2:
                    self.close_connection = True
                    self.connection.close()
                    return False
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
            return True

    with serving(Handler) as url:
        proxy.url = f"{url}/v1"
        try:
            yield proxy
        finally:
            proxy.over.set()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("upstream")
    parser.add_argument("--share", type=float, default=0.2, help="share of requests to spoil, 0..1")
    asked = parser.parse_args()
    with fault_proxy(asked.upstream, seeded(asked.share)) as proxy:
        print(proxy.url)
        threading.Event().wait()


if __name__ == "__main__":
    main()
