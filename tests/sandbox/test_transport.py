from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from neows_async.sandbox.transport import AsgiTransport

if TYPE_CHECKING:
    from neows_async.sandbox.delivery import Receive, Send

URL = "https://sandbox.invalid/"
START = {"type": "http.response.start", "status": 200, "headers": []}


def part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def hanging(scope: Any, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
    await anyio.sleep_forever()


async def test_exception_in_the_block_is_raised_unchanged() -> None:
    with pytest.raises(KeyError):
        async with httpx.AsyncClient(transport=AsgiTransport(hanging)):
            raise KeyError


async def test_exception_of_the_application_is_the_cause() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        raise ZeroDivisionError

    async with httpx.AsyncClient(transport=AsgiTransport(app)) as client:
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await client.get(URL)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_transport_must_be_entered_exactly_once() -> None:
    transport = AsgiTransport(hanging)
    with pytest.raises(RuntimeError, match="not entered"):
        await transport.handle_async_request(httpx.Request("GET", URL))
    async with transport:
        with pytest.raises(RuntimeError, match="entered already"):
            await transport.__aenter__()


async def test_exit_cancels_running_requests() -> None:
    ended = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        try:
            await send(START)
            await anyio.sleep_forever()
        finally:
            ended.append(scope["path"])

    transport = AsgiTransport(app)
    async with transport:
        response = await transport.handle_async_request(httpx.Request("GET", URL))
        assert response.status_code == 200
    assert ended == ["/"]


async def test_cancelled_request_cancels_the_application() -> None:
    began, ended = anyio.Event(), anyio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        try:
            began.set()
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with httpx.AsyncClient(transport=AsgiTransport(app), timeout=60) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.get, URL)
            await began.wait()
            tasks.cancel_scope.cancel()
        await ended.wait()


@pytest.mark.virtual_time
async def test_pool_timeout_limits_the_wait_for_a_connection() -> None:
    transport = AsgiTransport(hanging, max_connections=1)
    timeout = httpx.Timeout(100, pool=3)
    async with httpx.AsyncClient(transport=transport, timeout=timeout) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.get, URL)
            await anyio.wait_all_tasks_blocked()
            started_s = anyio.current_time()
            with pytest.raises(httpx.PoolTimeout, match="3 s"):
                await client.get(URL)
            assert anyio.current_time() - started_s == pytest.approx(3)
            tasks.cancel_scope.cancel()
        # The closed request has freed its connection.
        with pytest.raises(httpx.ReadTimeout):
            await client.get(URL)


@pytest.mark.virtual_time
async def test_read_timeout_limits_each_wait() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        await send(START)
        for _ in range(10):
            await anyio.sleep(4)
            await send(part(b"x"))
        await send(part(b"", more=False))

    async with httpx.AsyncClient(transport=AsgiTransport(app), timeout=5) as client:
        assert (await client.get(URL)).content == b"x" * 10
    async with httpx.AsyncClient(transport=AsgiTransport(app), timeout=3) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(URL)


async def test_application_receives_the_whole_request() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.extend([scope, await receive()])
        await send(START)
        await send(part(b"done", more=False))

    async with httpx.AsyncClient(transport=AsgiTransport(app)) as client:
        await client.post(f"{URL}a%20b?c=d%20e", content=b"body", headers={"X-Api-Key": "k"})
    scope, message = seen
    assert (scope["method"], scope["path"], scope["raw_path"]) == ("POST", "/a b", b"/a%20b")
    assert scope["query_string"] == b"c=d%20e"
    assert (b"x-api-key", b"k") in scope["headers"]
    assert message == {"type": "http.request", "body": b"body", "more_body": False}
