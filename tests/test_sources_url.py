"""Downloads over a real socket: limits on time, size and redirects, and what is never shown."""

from __future__ import annotations

import contextlib
import http.server
import io
import threading
import time
from collections.abc import Iterator

import pytest
from PIL import Image
from quiet_handler import QuietHandler

from vlm_nb import sources
from vlm_nb.errors import ImageTooLarge, SourceError, SourceNotFound, VLMError
from vlm_nb.sources import content_key, fetch, load


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (7, 5), "red").save(stream, "PNG")
    return stream.getvalue()


class Handler(QuietHandler):
    """One path, one behaviour."""

    seen: list[dict[str, str]] = []  # noqa: RUF012 - shared on purpose, emptied by the fixture
    stop = threading.Event()

    def do_GET(self) -> None:
        self.seen.append({"path": self.path, **dict(self.headers)})
        name = self.path.split("?")[0].strip("/").replace("-", "_").replace(".png", "").replace("%20", "_")
        with contextlib.suppress(OSError):
            getattr(self, name, self.missing)()
        self.close_connection = True

    def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def good(self) -> None:
        self.answer(200, picture())

    my_cat = good

    def missing(self) -> None:
        self.answer(404, b"gone")

    def forbidden(self) -> None:
        self.answer(403)

    def broken(self) -> None:
        self.answer(500)

    def page(self) -> None:
        self.answer(200, b"<!doctype html><title>log in</title>", **{"Content-Type": "image/png"})

    def moved(self) -> None:
        self.answer(302, Location="/good.png")

    def loop(self) -> None:
        self.answer(302, Location="/loop")

    def chain(self) -> None:
        self.answer(302, Location=f"/chain?{time.monotonic_ns()}")

    def elsewhere(self) -> None:
        self.answer(302, Location=f"http://localhost:{self.server.server_address[1]}/good.png")

    def to_file(self) -> None:
        self.answer(302, Location="file:///etc/hostname")

    def hang(self) -> None:
        self.stop.wait(20)

    def drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.stop.wait(0.05):
            self.wfile.write(b"x")

    def drip_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: ")
        while not self.stop.wait(0.05):
            self.wfile.write(b"x")

    def big(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.stop.is_set():
            self.wfile.write(b"x" * 65536)

    def big_length(self) -> None:
        self.answer(200, b"x", **{"Content-Length": "99999999999"})

    def short(self) -> None:
        self.answer(200, b"x" * 10, **{"Content-Length": "100"})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    Handler.seen.clear()
    Handler.stop.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        yield f"127.0.0.1:{httpd.server_address[1]}"
        Handler.stop.set()
        httpd.shutdown()
        thread.join()


def test_a_picture(server: str) -> None:
    assert load(f"http://{server}/good.png").size == (7, 5)
    assert load(f"http://{server}/my cat.png").size == (7, 5)
    assert load(f"http://{server}/moved").size == (7, 5)


def test_fetch_once_for_key_and_image(server: str) -> None:
    (item,) = sources.expand(f"http://{server}/good.png?secret=1")
    assert isinstance(item, sources.Source)
    held = fetch(item)
    assert held.label == item.label == f"http://{server}/good.png?…"
    assert content_key(held) == content_key(picture())
    assert load(held).size == (7, 5)
    assert len(Handler.seen) == 1


def test_credentials_travel_in_a_header_and_not_to_other_hosts(server: str) -> None:
    load(f"http://user:s%40crt@{server}/good.png")
    assert Handler.seen[-1]["Authorization"] == "Basic dXNlcjpzQGNydA=="
    load(f"http://user:secret@{server}/elsewhere")
    assert "Authorization" in Handler.seen[-2]
    assert "Authorization" not in Handler.seen[-1]


BAD = [
    ("missing", SourceNotFound, "no such file \\(404\\)"),
    ("forbidden", SourceError, "403.*needs credentials"),
    ("broken", SourceError, "answered 500"),
    ("page", SourceError, "an HTML page"),
    ("loop", SourceError, "more than 5 redirects"),
    ("chain", SourceError, "more than 5 redirects"),
    ("to-file", SourceError, "not http or https"),
    ("big", ImageTooLarge, "limit of 1 MB"),
    ("big-length", ImageTooLarge, "limit of 1 MB"),
    ("short", SourceError, "ended after 10 of 100 bytes"),
]


@pytest.mark.parametrize(("path", "kind", "text"), BAD, ids=[row[0] for row in BAD])
def test_bad_answers(server: str, path: str, kind: type[VLMError], text: str) -> None:
    url = f"http://user:hidden@{server}/{path}?key=hidden"
    with pytest.raises(kind, match=text) as caught:
        load(url, max_bytes=1_000_000)
    assert "hidden" not in str(caught.value)
    assert caught.value.source == f"http://{server}/{path}?…"
    assert str(caught.value).count(f"/{path}?…") == 1
    chain = caught.value.__cause__ or caught.value.__context__
    assert "hidden" not in repr(chain)


@pytest.mark.parametrize("path", ["hang", "drip", "drip-headers"])
def test_the_whole_download_has_one_deadline(server: str, path: str) -> None:
    start = time.monotonic()
    with pytest.raises(SourceError, match=r"no complete answer in 0.5 s"):
        load(f"http://{server}/{path}", timeout=0.5)
    assert time.monotonic() - start < 3


def test_nobody_listens() -> None:
    with pytest.raises(SourceError, match="cannot be fetched"):
        load("http://127.0.0.1:9/x.png", timeout=5)


@pytest.mark.parametrize("url", ["http://[broken/x.png", "http:///x.png", "http://127.0.0.1:99999999/x"])
def test_malformed_urls(url: str) -> None:
    with pytest.raises(SourceError):
        load(url, timeout=5)
