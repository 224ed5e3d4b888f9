"""NasaSource against a server on a real socket."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from neows_async.errors import SettingsError
from neows_async.sources.http_pool import open_transport
from neows_async.sources.nasa import NasaSource, check_base_url, open_client

if TYPE_CHECKING:
    from collections.abc import Iterator


class Server(ThreadingHTTPServer):
    """Counts the connections that are open."""

    daemon_threads = True

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.open_connections = self.connections = 0
        super().__init__(("127.0.0.1", 0), Handler)

    def count(self, change: int) -> None:
        with self.changed:
            self.open_connections += change
            self.connections += change > 0
            self.changed.notify_all()

    def settles_at(self, open_connections: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.open_connections == open_connections, timeout=60)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server  # type: ignore[mutable-override]  # always our class

    def setup(self) -> None:
        super().setup()
        self.server.count(1)

    def finish(self) -> None:
        super().finish()
        self.server.count(-1)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.send_header("X-RateLimit-Limit", "1000")
        self.send_header("X-RateLimit-Remaining", "999")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature of the base
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


@pytest.mark.may_block  # it waits for the server's threads
async def test_rest_closes_all_connections_and_the_source_works_afterwards(server: Server) -> None:
    transport = open_transport(connections=4)
    async with open_client(transport, connect_timeout_s=60, timeout_s=60) as client:
        url = f"http://127.0.0.1:{server.server_port}"
        source = NasaSource(client, base_url=url, api_key="k", transport=transport)
        for number in range(3):
            page = await source.fetch(number, 20)
            assert page.body == b"{}"
            assert page.rate_limit is not None
            assert page.rate_limit.remaining == 999
        assert server.connections == 1, "one connection serves them all"
        await source.on_idle()
        assert server.settles_at(0)
        await source.fetch(3, 20)
        assert server.connections == 2
    assert server.settles_at(0)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://api.nasa.gov", "/neo/rest/v1/neo/browse"),
        ("https://api.nasa.gov/", "/neo/rest/v1/neo/browse"),
        ("https://api.nasa.gov/neo/rest/v1", "/neo/rest/v1/neo/browse"),
        ("https://api.nasa.gov/neo/rest/v1/neo/browse", "/neo/rest/v1/neo/browse"),
        ("https://mirror.example/nasa", "/nasa/neo/rest/v1/neo/browse"),
        ("http://[::1]:8080", "/neo/rest/v1/neo/browse"),
    ],
)
async def test_base_url_with_or_without_the_api_path(url: str, path: str) -> None:
    async with open_client(open_transport(connections=1), connect_timeout_s=1, timeout_s=1) as client:
        source = NasaSource(client, base_url=url, api_key="k")
        assert source._url.path == path


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1.evil.example", "http://10.0.0.1", "https://", "https://x/?api_key=1", "x"]
)
def test_base_url_that_may_not_receive_a_key_is_refused(url: str) -> None:
    with pytest.raises(SettingsError):
        check_base_url(url)
