"""The sandbox on loopback: faults that ASGI cannot express must look the same to a client."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from neows_async.endpoints.browse import envelope
from neows_async.errors import SettingsError
from neows_async.sandbox.app import SandboxApp
from neows_async.sandbox.catalogue import SyntheticCatalogue
from neows_async.sandbox.scenario import Cut, Endless, Fault, Hang, Scenario, Slow
from neows_async.sandbox.server import listen, serve, serving, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import uvicorn

BROWSE = "/neo/rest/v1/neo/browse"
KEY = {"X-Api-Key": "k"}


@pytest.fixture(autouse=True)
def silence(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Neither a fault nor the end of the server writes to the terminal."""
    yield
    assert capfd.readouterr() == ("", "")


def app_of(*faults: Fault) -> SandboxApp:
    return SandboxApp(SyntheticCatalogue(100), scenario=Scenario(faults=faults))


@pytest.mark.uvloop
async def test_concurrent_clients_receive_whole_pages() -> None:
    app = app_of()
    whole: list[int] = []

    async def fetch(client: httpx.AsyncClient, page: int) -> None:
        response = await client.get(BROWSE, params={"page": page % 5, "size": 20}, headers=KEY)
        whole.append(envelope.check(response.content, page % 5, 20).number)

    with serving(app) as url:
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client, anyio.create_task_group() as tasks:
            for page in range(20):
                tasks.start_soon(fetch, client, page)
    assert sorted(whole) == sorted(list(range(5)) * 4)
    assert len(app.served) == 20


def client_at(url: str, timeout_s: float = 5) -> httpx.Client:
    return httpx.Client(base_url=url, trust_env=False, headers=KEY, timeout=timeout_s)


@pytest.mark.parametrize("after", ["request", "headers", "body"])
def test_connection_is_cut(after: Any) -> None:
    statuses: list[int] = []
    received = 0

    def read(client: httpx.Client) -> None:
        nonlocal received
        with client.stream("GET", BROWSE) as response:
            statuses.append(response.status_code)
            for chunk in response.iter_raw():
                received += len(chunk)

    with serving(app_of(Cut(after=after, attempts=frozenset({1})))) as url, client_at(url) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            read(client)
        assert client.get(BROWSE).status_code == 200
    assert statuses == ([] if after == "request" else [200])
    assert (received > 0) == (after == "body")


@pytest.mark.parametrize("after", ["request", "headers", "body"])
def test_connection_hangs(after: Any) -> None:
    app = app_of(Hang(after=after))
    with serving(app) as url, client_at(url, 0.2) as client, pytest.raises(httpx.ReadTimeout):
        client.get(BROWSE)
    assert len(app.served) == 1


def test_endless_body_does_not_block_other_clients() -> None:
    app = app_of(Endless(pages=frozenset({1})))
    with serving(app) as url, httpx.Client(base_url=url, trust_env=False, headers=KEY) as client:
        received = 0
        with client.stream("GET", BROWSE, params={"page": 1}) as response:
            for chunk in response.iter_raw():
                received += len(chunk)
                if received > 3 << 20:
                    assert client.get(BROWSE).status_code == 200
                    break


@pytest.mark.parametrize("fault", [Hang(after="body"), Slow(delay_s=3_600), Endless()])
def test_server_stops_with_requests_in_flight(fault: Fault) -> None:
    app = app_of(fault)
    with serving(app) as url, socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(f"GET {BROWSE} HTTP/1.1\r\nHost: x\r\nX-Api-Key: k\r\n\r\n".encode())
        if not isinstance(fault, Slow):
            assert connection.recv(1) == b"H"
    # No server listens there now.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))


@pytest.mark.asyncio_only
async def test_cancellation_stops_the_server_and_frees_the_port() -> None:
    started: list[uvicorn.Server] = []
    with listen(0) as listening:
        url = url_of(listening)
        async with httpx.AsyncClient(base_url=url, trust_env=False, headers=KEY) as client:
            task = asyncio.ensure_future(serve(app_of(Hang(pages=frozenset({1}))), listening, started.append))
            assert (await client.get(BROWSE)).status_code == 200
            hung = asyncio.ensure_future(client.get(BROWSE, params={"page": 1}))
            await anyio.wait_all_tasks_blocked()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(httpx.HTTPError):
                await hung
    assert len(started) == 1
    with listen(int(url.rpartition(":")[2])):
        pass


@pytest.mark.parametrize("port", [-1, 65_536])
def test_invalid_port_is_named(port: int) -> None:
    with pytest.raises(SettingsError, match=f"--port {port}: "):
        listen(port)


def test_request_before_the_start_is_served() -> None:
    with serving(app_of()) as url:
        assert url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{url}{BROWSE}", headers=KEY, trust_env=False).status_code == 200
