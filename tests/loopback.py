"""A real HTTP server on loopback whose answers a test writes itself."""

from __future__ import annotations

import gzip
import json
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from neows_async.testing import browse_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path


@dataclass
class Answer:
    """What a request gets."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What a request was."""

    path: str
    page: int
    size: int
    key: str | None
    headers: Mapping[str, str]
    query: str = ""


@dataclass
class Server:
    """Where it listens, and what it was asked."""

    url: str
    asked: list[Asked] = field(default_factory=list)

    @property
    def pages(self) -> list[int]:
        return [asked.page for asked in self.asked]


@contextmanager
def serving(answer: Callable[[Asked], Answer]) -> Iterator[Server]:
    """Serve ``answer`` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            asked = Asked(
                url.path,
                int(query.get("page", "0")),
                int(query.get("size", "20")),
                self.headers.get("X-Api-Key") or query.get("api_key"),
                dict(self.headers),
                url.query,
            )
            server.asked.append(asked)
            given = answer(asked)
            body = given.body
            self.send_response(given.status)
            headers = {"Content-Type": "application/json;charset=UTF-8", "Connection": "close", **given.headers}
            if "gzip" in self.headers.get("Accept-Encoding", "") and "Content-Encoding" not in headers:
                body = gzip.compress(body, mtime=0)
                headers["Content-Encoding"] = "gzip"
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature of the base
            pass

    class Httpd(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            # Who is killed takes no answer.
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    httpd = Httpd(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{httpd.server_port}")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def browse(objects: Sequence[Mapping[str, Any]]) -> Callable[[Asked], Answer]:
    """Browse pages over ``objects``, with the caller's key in their links, as the source does."""

    def answer(asked: Asked) -> Answer:
        page = json.loads(browse_page(objects, asked.page, asked.size))
        page["links"] = {"self": f"http://x/neo/rest/v1/neo/browse?page={asked.page}&api_key={asked.key}"}
        for entry in page["near_earth_objects"]:
            entry["links"] = {"self": f"http://x/neo/rest/v1/neo/1?api_key={asked.key}"}
        return Answer(json.dumps(page).encode(), headers={"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "990"})

    return answer


def recorded(folder: Path) -> Callable[[Asked], Answer]:
    """The recorded pages, byte for byte but for the key, which is the caller's."""

    def answer(asked: Asked) -> Answer:
        body = gzip.decompress((folder / f"page_{asked.page:05}.json.gz").read_bytes())
        return Answer(body.replace(b"DEMO_KEY", str(asked.key).encode()))

    return answer
