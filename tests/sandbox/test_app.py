"""The application with the real client, in this process, and every fault of a scenario."""

from __future__ import annotations

import gzip
import json
import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from neows_async.endpoints.browse import envelope
from neows_async.errors import BadPageError
from neows_async.sandbox.app import SandboxApp
from neows_async.sandbox.catalogue import SyntheticCatalogue
from neows_async.sandbox.rate_limits import REFUSALS, GatewayRules
from neows_async.sandbox.scenario import (
    Change,
    Cut,
    Endless,
    Fault,
    Hang,
    Html,
    Latency,
    Outage,
    OverRateLimit,
    Redirect,
    Refused,
    Replace,
    Scenario,
    ShortPage,
    Slow,
    Status,
    TruncatedGzip,
    TruncatedJson,
    WrongPage,
    WrongType,
)
from neows_async.sandbox.transport import AsgiTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BROWSE = "/neo/rest/v1/neo/browse"
ONCE = frozenset({1})


@asynccontextmanager
async def client_of(app: SandboxApp, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    options = {"headers": {"X-Api-Key": "k" * 20}, "base_url": "https://sandbox.invalid", "timeout": 5, **options}
    async with httpx.AsyncClient(transport=AsgiTransport(app), trust_env=False, **options) as client:
        yield client


def app_with(*faults: Fault, neos: int = 100, **scenario: Any) -> SandboxApp:
    return SandboxApp(SyntheticCatalogue(neos), scenario=Scenario(faults=faults, **scenario), threads=False)


async def get(app: SandboxApp, page: int = 0, **options: Any) -> httpx.Response:
    async with client_of(app, **options) as client:
        return await client.get(BROWSE, params={"page": page, "size": 20})


async def test_requests_after_a_fault_succeed() -> None:
    app = app_with(Outage(attempts=ONCE))
    async with client_of(app) as client:
        assert (await client.get(BROWSE, params={"page": 1})).status_code == 503
        good = await client.get(BROWSE, params={"page": 1, "size": 20})
    envelope.check(good.content, 1, 20)
    assert [(served.page, served.attempt, served.status, served.fault) for served in app.served] == [
        (1, 1, 503, Outage(attempts=ONCE)),
        (1, 2, 200, None),
    ]
    assert "kkk" not in repr(app.served)


async def test_outage_is_html_and_costs_quota() -> None:
    app = app_with(Outage(attempts=ONCE))
    async with client_of(app) as client:
        first = await client.get(BROWSE)
        second = await client.get(BROWSE)
    assert first.headers["content-type"].startswith("text/html")
    assert "heroku" in first.headers["via"]
    assert "Application error" in first.text
    remaining = [response.headers["x-ratelimit-remaining"] for response in (first, second)]
    assert remaining == ["999", "998"]


@pytest.mark.parametrize("status", [500, 502, 504])
@pytest.mark.parametrize(("shape", "names"), [("backend", {"code"}), ("gateway", {"error"}), ("html", None)])
async def test_error_statuses_have_three_formats(status: int, shape: Any, names: set[str] | None) -> None:
    response = await get(app_with(Status(status=status, shape=shape)))
    assert response.status_code == status
    assert response.headers["x-ratelimit-limit"] == "1000"
    if names is None:
        assert response.text.startswith("<!DOCTYPE html>")
    else:
        assert names <= set(response.json())


async def test_spurious_429_is_not_counted() -> None:
    app = app_with(OverRateLimit(retry_after_s=7, attempts=ONCE))
    async with client_of(app) as client:
        refused = await client.get(BROWSE)
        good = await client.get(BROWSE)
    assert (refused.status_code, refused.headers["retry-after"], refused.headers["x-ratelimit-remaining"]) == (
        429,
        "7",
        "0",
    )
    assert refused.json()["error"]["code"] == "OVER_RATE_LIMIT"
    assert good.headers["x-ratelimit-remaining"] == "999"
    silent = await get(app_with(OverRateLimit(retry_after_s=None)))
    assert "retry-after" not in silent.headers


@pytest.mark.parametrize("code", REFUSALS)
async def test_key_can_be_refused_during_a_run(code: str) -> None:
    response = await get(app_with(Refused(code=code)))
    assert (response.status_code, response.json()["error"]["code"]) == (403, code)
    assert not [name for name in response.headers if "ratelimit" in name]


async def test_faulty_responses_with_status_200() -> None:
    html = await get(app_with(Html()))
    assert (html.status_code, html.headers["content-type"][:9]) == (200, "text/html")
    short_json = await get(app_with(TruncatedJson()))
    for response in (html, short_json):
        assert response.status_code == 200
        with pytest.raises(BadPageError, match=r"not JSON|not a Browse page"):
            envelope.check(response.content, 0)
    other = await get(app_with(WrongPage()), 1)
    with pytest.raises(BadPageError, match="expected page 1, but this is page 2"):
        envelope.check(other.content, 1)
    named = await get(app_with(WrongPage(number=4)), 1)
    assert envelope.check(named.content, 4).number == 4
    short = await get(app_with(ShortPage(missing_neos=3)))
    with pytest.raises(BadPageError, match="announces 20 objects, but holds 17"):
        envelope.check(short.content, 0)
    replaced = await get(app_with(Replace(body='{"é": 1}', status=201, content_type="application/hal+json")))
    assert (replaced.status_code, replaced.json()) == (201, {"é": 1})
    typed = await get(app_with(WrongType(content_type="text/plain")))
    assert typed.headers["content-type"] == "text/plain"
    envelope.check(typed.content, 0)


async def test_redirect_names_another_host() -> None:
    response = await get(app_with(Redirect(location="https://evil.invalid/x", status=307)))
    assert (response.status_code, response.headers["location"]) == (307, "https://evil.invalid/x")


async def test_truncated_gzip_is_a_complete_response() -> None:
    async with client_of(app_with(TruncatedGzip())) as client, client.stream("GET", BROWSE) as response:
        raw = b"".join([chunk async for chunk in response.aiter_raw()])
    assert response.headers["content-encoding"] == "gzip"
    decoder = zlib.decompressobj(wbits=31)
    assert decoder.decompress(raw).startswith(b'{"links"')
    assert not decoder.eof


@pytest.mark.parametrize("after", ["request", "headers", "body"])
async def test_connection_is_cut(after: Any) -> None:
    statuses: list[int] = []
    received = 0

    async def read(client: httpx.AsyncClient) -> None:
        nonlocal received
        async with client.stream("GET", BROWSE) as response:
            statuses.append(response.status_code)
            async for chunk in response.aiter_raw():
                received += len(chunk)

    async with client_of(app_with(Cut(after=after))) as client:
        with pytest.raises(httpx.RemoteProtocolError, match="closed the connection"):
            await read(client)
    assert statuses == ([] if after == "request" else [200])
    assert (received > 0) == (after == "body")


@pytest.mark.virtual_time
@pytest.mark.parametrize("after", ["request", "headers", "body"])
async def test_connection_hangs_until_the_client_disconnects(after: Any) -> None:
    started_s = anyio.current_time()
    async with client_of(app_with(Hang(after=after)), timeout=30) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(BROWSE)
    assert anyio.current_time() - started_s == pytest.approx(30)


@pytest.mark.virtual_time
async def test_endless_body_continues_while_it_is_read() -> None:
    request = httpx.Request("GET", f"https://sandbox.invalid{BROWSE}", headers={"X-Api-Key": "k"})
    received = 0
    # Without the client, whose generators warn on trio if they are not read to their end.
    async with AsgiTransport(app_with(Endless(interval_s=1))) as transport:
        response = await transport.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        chunks = aiter(response.stream)
        while received < 5 << 20:
            received += len(await anext(chunks))
        await response.aclose()
    assert "content-encoding" not in response.headers


@pytest.mark.virtual_time
async def test_latency_delays_responses() -> None:
    app = app_with(Slow(delay_s=100, pages=frozenset({1})), latency=Latency(median_s=5))
    async with client_of(app, timeout=1_000) as client:
        took_s = []
        for page in (0, 1):
            started_s = anyio.current_time()
            await client.get(BROWSE, params={"page": page})
            took_s.append(anyio.current_time() - started_s)
    assert took_s == [pytest.approx(5), pytest.approx(105)]


@pytest.mark.virtual_time
async def test_scenario_time_begins_at_the_first_request() -> None:
    app = SandboxApp(
        SyntheticCatalogue(100),
        scenario=Scenario(faults=(Outage(from_s=60, until_s=120),)),
        clock=lambda: 1e9 + anyio.current_time(),
        threads=False,
    )
    statuses = []
    async with client_of(app) as client:
        for wait_s in (500, 59, 1, 59, 1):
            await anyio.sleep(wait_s)
            statuses.append((await client.get(BROWSE)).status_code)
    assert statuses == [200, 200, 503, 503, 200]


@pytest.mark.virtual_time
async def test_hour_of_quota_passes_in_virtual_time() -> None:
    app = SandboxApp(
        SyntheticCatalogue(100),
        scenario=Scenario(gateway=GatewayRules(hourly_limit=3)),
        clock=lambda: 3600 * 1e5 + anyio.current_time(),
        threads=False,
    )
    statuses = []
    async with client_of(app) as client:
        for _ in range(5):
            response = await client.get(BROWSE)
            statuses.append(response.status_code)
            await anyio.sleep(int(response.headers.get("retry-after", "0")))
    assert statuses == [200, 200, 200, 429, 200]


async def test_growing_catalogue_repeats_an_object() -> None:
    app = app_with(neos=60, changes=(Change(after_requests=1, add=1),))
    async with client_of(app) as client:
        pages = [(await client.get(BROWSE, params={"page": page})).json() for page in range(4)]
    assert [page["page"]["total_elements"] for page in pages] == [60, 61, 61, 61]
    ids = [entry["id"] for page in pages for entry in page["near_earth_objects"]]
    assert len(ids) == 61
    assert len(set(ids)) == 60
    assert ids[19] == ids[20]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"page": "x"}, 400),
        ({"page": "-1"}, 400),
        ({"page": "1.0"}, 400),
        ({"page": "99999999999999999999"}, 400),
        ({"page": "²"}, 400),
        ({"size": "0"}, 400),
        ({"size": "x"}, 400),
        ({"page": "999999999"}, 200),
        ({}, 200),
    ],
)
async def test_invalid_parameters_get_the_flat_error(query: dict[str, str], status: int) -> None:
    async with client_of(app_with()) as client:
        response = await client.get(BROWSE, params=query)
    assert response.status_code == status
    assert response.headers["x-ratelimit-remaining"] == "999"
    if status == 400:
        assert set(response.json()) == {"code", "http_error", "error_message", "request"}
        assert response.json()["request"].endswith("api_key=" + "k" * 20)


async def test_other_paths_and_methods_are_errors() -> None:
    async with client_of(app_with()) as client:
        assert (await client.get("/planetary/apod")).status_code == 404
        assert (await client.post(BROWSE, content=b"x" * 100_000)).status_code == 405
        assert (await client.get("/neo/browse")).status_code == 200
        assert (await client.get(f"{BROWSE}/")).status_code == 200


@pytest.mark.parametrize(
    ("query", "accept", "html"),
    [
        ("", "*/*", False),
        ("", "application/json", False),
        ("", "text/html,application/xhtml+xml;q=0.9", True),
        ("?format=html", "application/json", True),
        ("?format=json", "text/html", False),
        ("?format=other", "text/html", True),
    ],
)
async def test_gateway_responds_in_the_requested_format(query: str, accept: str, html: bool) -> None:
    async with client_of(app_with(), headers={"Accept": accept}) as client:
        response = await client.get(f"{BROWSE}{query}")
        suffixed = await client.get(f"{BROWSE}.html")
    assert response.status_code == suffixed.status_code == 403
    assert response.text.startswith("<html>") == html
    assert suffixed.text.startswith("<html>")


async def test_key_in_the_header_precedes_the_query() -> None:
    rules = GatewayRules(known_keys=frozenset({"good"}))
    app = app_with(gateway=rules)
    async with client_of(app, headers={}) as client:
        tries = [("good", "bad"), ("bad", "good"), ("", "good")]
        statuses = [
            (await client.get(BROWSE, params={"api_key": query}, headers={"X-Api-Key": header})).status_code
            for header, query in tries
        ]
    assert statuses == [200, 403, 200]


async def test_gzip_only_if_the_client_accepts_it() -> None:
    async with client_of(app_with()) as client:
        plain = await client.get(BROWSE, headers={"Accept-Encoding": "identity"})
        async with client.stream("GET", BROWSE, headers={"Accept-Encoding": "gzip"}) as packed:
            raw = b"".join([chunk async for chunk in packed.aiter_raw()])
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw) == plain.content
    assert len(raw) < len(plain.content) / 2


async def test_concurrent_requests_get_their_own_pages() -> None:
    app = SandboxApp(SyntheticCatalogue(200))
    found: dict[int, list[str]] = {}

    async def fetch(client: httpx.AsyncClient, page: int) -> None:
        response = await client.get(BROWSE, params={"page": page})
        found[page] = [entry["id"] for entry in response.json()["near_earth_objects"]]

    async with client_of(app) as client, anyio.create_task_group() as tasks:
        for page in range(10):
            tasks.start_soon(fetch, client, page)
    ids = [name for page in sorted(found) for name in found[page]]
    assert ids == [json.loads(entry.body)["id"] for entry in SyntheticCatalogue(200).entries(0, 200)]


async def test_cut_is_an_exception_for_servers_that_cannot_close_a_connection() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app_with(Cut()))) as client:
        with pytest.raises(ExceptionGroup) as caught:
            await client.get(f"https://sandbox.invalid{BROWSE}", headers={"X-Api-Key": "k"})
    assert caught.group_contains(ConnectionAbortedError)


def test_client_can_be_created_without_an_event_loop() -> None:
    client = httpx.AsyncClient(transport=AsgiTransport(app_with()), trust_env=False)

    async def ask() -> int:
        async with client:
            response = await client.get(f"https://sandbox.invalid{BROWSE}", headers={"X-Api-Key": "k"})
            return response.status_code

    assert anyio.run(ask) == 200
