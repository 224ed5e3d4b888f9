"""The embedder's own httpx client: its connections are used, and nothing else of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from neows_async import KeyRefusedError, Settings, ingest, open_neos
from tests import loopback
from tests.neos import catalogue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.loopback import Answer, Asked

KEY = "the-key-of-this-run"


def a_client(**more: Any) -> httpx.AsyncClient:
    """One that is set up for quite another host, and would defeat us if it could."""
    return httpx.AsyncClient(
        **{
            "base_url": "https://elsewhere.invalid/api/",
            "headers": {"Authorization": "Bearer of-another-service", "X-Api-Key": "another", "Accept": "text/html"},
            "params": {"api_key": "another"},
            "cookies": {"session": "of-another-service"},
            "auth": ("user", "password"),
            "timeout": 1e-6,
            "follow_redirects": True,
            "trust_env": False,
            **more,
        }
    )


@pytest.mark.uvloop
async def test_what_it_sends_to_others_is_not_sent() -> None:
    with loopback.serving(loopback.browse(catalogue(45))) as server:
        async with a_client() as client:
            before = (dict(client.headers), dict(client.cookies), client.timeout, client.follow_redirects)
            settings = Settings(base_url=server.url, api_key=KEY, limit=None)
            async with open_neos(settings, client=client) as neos:
                assert len([known async for known in neos]) == 45
            assert (dict(client.headers), dict(client.cookies), client.timeout, client.follow_redirects) == before
            assert not client.is_closed
    for asked in server.asked:
        headers = {name.lower(): value for name, value in asked.headers.items()}
        assert headers["x-api-key"] == KEY
        assert not {"authorization", "cookie"} & set(headers)
        assert headers["accept"] == "application/json"
        assert "another" not in str(headers)
        assert "api_key" not in asked.query


async def test_no_redirect_is_followed() -> None:
    def away(_: Asked) -> Answer:
        return loopback.Answer(status=302, headers={"Location": "https://elsewhere.invalid/"})

    with loopback.serving(away) as server:
        async with a_client() as client, open_neos(Settings(base_url=server.url, api_key=KEY), client=client) as neos:
            with pytest.raises(Exception, match=r"302, a redirect to elsewhere\.invalid; it is not followed"):
                await anext(neos)
    assert len(server.asked) == 1


async def raise_for_status(response: httpx.Response) -> None:
    response.raise_for_status()


async def read(response: httpx.Response) -> None:
    await response.aread()


@pytest.mark.parametrize("hooks", [[raise_for_status], [read, raise_for_status]])
async def test_hooks_that_raise_or_read_are_coped_with(tmp_path: Path, hooks: list[Any]) -> None:
    browse = loopback.browse(catalogue(45))
    limited = iter([True, False])

    def answer(asked: Asked) -> Answer:
        if asked.page == 1 and next(limited):
            return loopback.Answer(
                b"{}", 429, {"Retry-After": "1", "X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "0"}
            )
        return browse(asked)

    with loopback.serving(answer) as server:
        async with a_client(event_hooks={"response": hooks}) as client:
            settings = Settings(base_url=server.url, api_key=KEY, limit=45, root=str(tmp_path), concurrency=1)
            receipt = await ingest(settings, client=client)
    assert (receipt.records.written, receipt.requests.sent, receipt.requests.failed) == (45, 4, 1)
    assert receipt.time_s["quota"] > 0.5, "the answer's Retry-After was seen"


async def test_a_hook_that_raises_hides_no_refusal() -> None:
    refused = loopback.Answer(b'{"error": {"code": "API_KEY_INVALID"}}', 403)
    with loopback.serving(lambda _: refused) as server:
        async with (
            a_client(event_hooks={"response": [raise_for_status]}) as client,
            open_neos(Settings(base_url=server.url, api_key=KEY), client=client) as neos,
        ):
            with pytest.raises(KeyRefusedError) as caught:
                await anext(neos)
    assert caught.value.status == 403
    assert len(server.asked) == 1


async def test_any_transport_will_do() -> None:
    bodies = loopback.browse(catalogue(45))

    class Transport(httpx.AsyncBaseTransport):
        closed = 0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            page, size = int(request.url.params["page"]), int(request.url.params["size"])
            asked = loopback.Asked(request.url.path, page, size, request.headers["x-api-key"], {})
            return httpx.Response(200, stream=Chunks(bodies(asked).body))

        async def aclose(self) -> None:
            self.closed += 1

    class Chunks(httpx.AsyncByteStream):
        def __init__(self, body: bytes) -> None:
            self._body = body

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield self._body

    transport = Transport()
    async with a_client(transport=transport) as client:
        settings = Settings(base_url="https://anywhere.invalid", api_key=KEY, limit=None)
        async with open_neos(settings, client=client) as neos:
            assert len([known async for known in neos]) == 45
        assert transport.closed == 0
