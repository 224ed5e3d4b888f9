"""The sandbox against recorded pages of the original: same fields, same headers, same limits."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from neows_async.errors import SettingsError
from neows_async.sandbox.app import SandboxApp
from neows_async.sandbox.catalogue import RecordedPages, SyntheticCatalogue
from neows_async.sandbox.rate_limits import Gateway, GatewayRules
from neows_async.sandbox.server import listen, serving
from neows_async.sandbox.transport import AsgiTransport

if TYPE_CHECKING:
    from pathlib import Path

    from neows_async.sandbox.delivery import Receive, Send

URL = "http://sandbox.invalid/neo/rest/v1/neo/browse"


def client_of(app: Any, read_s: float | None = 5) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=AsgiTransport(app), timeout=httpx.Timeout(5, read=read_s), trust_env=False)


def shape(value: Any) -> Any:
    """Names, order and types; a list is described by its first entry."""
    if isinstance(value, dict):
        return [(name, shape(beneath)) for name, beneath in value.items()]
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


async def page_of(app: SandboxApp, number: int = 0, **query: Any) -> Any:
    async with client_of(app) as client:
        response = await client.get(URL, params={"page": number, **query}, headers={"X-Api-Key": "k" * 40})
    assert response.status_code == 200
    return response.json()


async def test_synthetic_page_has_the_fields_of_a_recorded_one(recorded_pages: Path) -> None:
    recorded = json.loads(gzip.decompress((recorded_pages / "page_00000.json.gz").read_bytes()))
    page = await page_of(SandboxApp(SyntheticCatalogue(41_282)))
    assert shape(page) == shape(recorded)
    assert page["page"] == recorded["page"]
    unnamed = next(entry for entry in page["near_earth_objects"] if "name_limited" not in entry)
    assert unnamed["name"].startswith("(SANDBOX ")


async def test_every_link_holds_the_key_of_the_request() -> None:
    page = await page_of(SandboxApp(SyntheticCatalogue(100)), 1)
    links = [*page["links"].values(), *(entry["links"]["self"] for entry in page["near_earth_objects"])]
    assert len(links) == 23
    assert all(link.startswith("http://") and link.endswith("api_key=" + "k" * 40) for link in links)


def test_seed_determines_realistic_objects() -> None:
    entries = SyntheticCatalogue(2_000, seed=7).entries(0, 2_000)
    assert SyntheticCatalogue(5_000, seed=7).entries(1_990, 2_000) == entries[1_990:]
    assert SyntheticCatalogue(2_000, seed=8).entries(0, 1) != entries[:1]
    objects = [json.loads(entry.body) for entry in entries]
    counts = [len(entry["close_approach_data"]) for entry in objects]
    assert 20 < sum(counts) / len(counts) < 26
    assert 0.07 < counts.count(0) / len(counts) < 0.13
    assert max(counts) <= 473
    approaches = [one for entry in objects for one in entry["close_approach_data"]]
    assert {one["orbiting_body"] for one in approaches} == {"Earth", "Venus", "Juptr", "Mars", "Merc", "Moon"}
    years = {one["close_approach_date"][:4] for one in approaches}
    assert (min(years), max(years)) == ("1900", "2200")
    near = sum(float(one["miss_distance"]["astronomical"]) < 0.2 for one in approaches)
    assert 0.62 < near / len(approaches) < 0.72
    for entry in objects:
        epochs = [one["epoch_date_close_approach"] for one in entry["close_approach_data"]]
        assert epochs == sorted(epochs)
    assert len({entry["id"] for entry in objects}) == 2_000
    assert all("SANDBOX" in entry["name"] for entry in objects)


@pytest.mark.parametrize(
    ("number", "size", "count", "page_size"),
    [(0, 20, 20, 20), (2, 20, 5, 20), (9, 20, 0, 20), (1, 5, 5, 5), (0, 50, 20, 20)],
)
async def test_page_number_and_size_select_the_objects(number: int, size: int, count: int, page_size: int) -> None:
    page = await page_of(SandboxApp(SyntheticCatalogue(45)), number, size=size)
    assert len(page["near_earth_objects"]) == count
    assert page["page"] == {
        "size": page_size,
        "total_elements": 45,
        "total_pages": -(-45 // page_size),
        "number": number,
    }


async def test_page_is_gzip_chunked_with_quota_headers() -> None:
    app = SandboxApp(SyntheticCatalogue(100), gateway=Gateway(hourly_limit=77))
    async with client_of(app) as client, client.stream("GET", URL, headers={"X-Api-Key": "k"}) as response:
        chunks = [chunk async for chunk in response.aiter_raw()]
    assert len(chunks) > 1
    assert b'"near_earth_objects"' in gzip.decompress(b"".join(chunks))
    assert response.headers["content-type"] == "application/json;charset=UTF-8"
    assert "content-length" not in response.headers
    assert (response.headers["x-ratelimit-limit"], response.headers["x-ratelimit-remaining"]) == ("77", "76")


async def test_gateway_refuses_missing_keys_and_exceeded_limits() -> None:
    gateway = Gateway(GatewayRules(refused_keys={"old": "API_KEY_DISABLED"}, known_keys=frozenset({"good"})))
    async with client_of(SandboxApp(SyntheticCatalogue(100), gateway=gateway)) as client:
        codes = []
        for headers in ({}, {"X-Api-Key": "bad"}, {"X-Api-Key": "old"}):
            response = await client.get(URL, headers=headers)
            codes.append((response.status_code, response.json()["error"]["code"]))
            assert "x-ratelimit-limit" not in response.headers
        assert codes == [(403, "API_KEY_MISSING"), (403, "API_KEY_INVALID"), (403, "API_KEY_DISABLED")]
        bad = await client.get(URL, params={"page": "x"}, headers={"X-Api-Key": "good"})
        assert (bad.status_code, bad.json()["http_error"]) == (400, "BAD_REQUEST")
        lost = await client.get("http://sandbox.invalid/nowhere", params={"api_key": "good"})
        assert (lost.status_code, lost.json()["error"]["code"]) == (404, "NOT_FOUND")
        assert (await client.get(URL, params={"api_key": "bad"}, headers={"X-Api-Key": "good"})).status_code == 200


async def test_demo_key_has_thirty_requests_an_hour() -> None:
    now_s = 1_000 * 3600.0 + 600
    app = SandboxApp(SyntheticCatalogue(100), clock=lambda: now_s)
    async with client_of(app) as client:
        codes = [(await client.get(URL, headers={"X-Api-Key": "DEMO_KEY"})).status_code for _ in range(30)]
        assert codes == [200] * 30
        refused = await client.get(URL, headers={"X-Api-Key": "DEMO_KEY"})
    assert refused.status_code == 429
    assert refused.headers["x-ratelimit-remaining"] == "0"
    # The rest of this hour, and then until one of the thirty has left the window.
    assert refused.headers["retry-after"] == str(3000 + 1)
    assert refused.json()["error"]["code"] == "OVER_RATE_LIMIT"
    assert [served.status for served in app.served] == [200] * 30 + [429]


def test_rate_limit_window_slides() -> None:
    gateway = Gateway(hourly_limit=100)
    for _ in range(60):
        assert gateway.check("k", 7_200.0).status == 200
        gateway.count("k", 7_200.0)
    # After half of the next hour, half of them count.
    halfway = gateway.check("k", 10_800.0 + 1_800.0)
    assert halfway.remaining == 100 - 30 - 1
    for _ in range(70):
        assert gateway.check("k", 12_600.0).status == 200
        gateway.count("k", 12_600.0)
    refused = gateway.check("k", 12_600.0)
    assert refused.status == 429
    assert refused.retry_after_s is not None
    assert gateway.check("k", 12_600.0 + refused.retry_after_s - 1).status == 429
    assert gateway.check("k", 12_600.0 + refused.retry_after_s).status == 200


@pytest.mark.filterwarnings("ignore:Exception ignored in.*async_generator:pytest.PytestUnraisableExceptionWarning")
async def test_transport_streams_with_backpressure() -> None:
    sent = 0

    async def app(scope: Any, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            sent += 1

    async with client_of(app) as client, client.stream("GET", URL) as response:
        chunks = response.aiter_raw()
        assert await anext(chunks) == b"x"
        await anyio.wait_all_tasks_blocked()
        assert sent <= 2
    assert sent < 100


async def test_transport_applies_the_read_timeout() -> None:
    hung = anyio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        if scope["query_string"] == b"body":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await hung.wait()

    async with client_of(app, read_s=0.01) as client:
        for query in ("head", "body"):
            with pytest.raises(httpx.ReadTimeout):
                await client.get(f"{URL}?{query}")


async def test_transport_raises_when_the_connection_breaks() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        if scope["query_string"] == b"body":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ConnectionResetError

    async with client_of(app) as client:
        for query in ("head", "body"):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(f"{URL}?{query}")


async def test_application_receives_the_disconnect() -> None:
    heard: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert (await receive())["type"] == "http.request"
        try:
            heard.append((await receive())["type"])
        finally:
            heard.append("ended")

    async with client_of(app) as client, client.stream("GET", URL):
        pass
    assert heard[-1] == "ended"


def test_recorded_pages_are_served_from_three_file_formats(recorded_pages: Path, tmp_path: Path) -> None:
    catalogue = RecordedPages(recorded_pages)
    assert catalogue.total == 200
    assert len(catalogue.entries(199, 220)) == 1
    first = gzip.decompress((recorded_pages / "page_00000.json.gz").read_bytes())
    recorded = json.loads(first)["near_earth_objects"]
    for entry in recorded:
        del entry["links"]  # the server makes them
    assert [json.loads(entry.body) for entry in catalogue.entries(0, 20)] == recorded
    (tmp_path / "page_00000.json").write_bytes(first)
    assert RecordedPages(tmp_path).entries(3, 5) == catalogue.entries(3, 5)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "has no page_NNNNN.json"),
        ({"page_00001.json": b"{}"}, "not numbered 0 to 0 without a gap"),
        ({"page_00000.json": b"{"}, "is not a recorded Browse page"),
        ({"page_00000.json.gz": b"no gzip"}, "is not a recorded Browse page"),
        ({"page_00000.json.zst": b"no zstd"}, "is not a recorded Browse page"),
    ],
)
def test_invalid_page_file_is_named(tmp_path: Path, files: dict[str, bytes], reason: str) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(SettingsError, match=reason):
        RecordedPages(tmp_path)
    with pytest.raises(SettingsError, match="cannot be read"):
        RecordedPages(tmp_path / "nowhere")


def test_sandbox_serves_on_loopback() -> None:
    app = SandboxApp(SyntheticCatalogue(100))
    with serving(app) as url, httpx.Client(trust_env=False) as client:
        response = client.get(f"{url}/neo/rest/v1/neo/browse", params={"page": 4}, headers={"X-Api-Key": "k"})
        assert len(response.json()["near_earth_objects"]) == 20
        assert response.headers["transfer-encoding"] == "chunked"
        assert response.headers["content-encoding"] == "gzip"


def test_port_in_use_is_named() -> None:
    with listen(0) as first:
        first.listen()
        with pytest.raises(SettingsError, match="choose another, or 0 for a free one"):
            listen(first.getsockname()[1])
