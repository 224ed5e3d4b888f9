"""The sandbox behind an httpx client: NeoWs and its gateway, with faults on request, without a socket."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import httpx

from neows_async.sandbox.app import SandboxApp
from neows_async.sandbox.catalogue import SyntheticCatalogue
from neows_async.sandbox.scenario import Scenario
from neows_async.sandbox.transport import AsgiTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from neows_async.sandbox.catalogue import Catalogue


class SandboxClient(httpx.AsyncClient):
    """A client that sends every request to :attr:`app`, for any host."""

    def __init__(self, app: SandboxApp) -> None:
        super().__init__(transport=AsgiTransport(app), trust_env=False)
        self.app = app
        """The sandbox. ``app.served`` lists the requests in order; ``app.attempts`` counts them by page."""


@asynccontextmanager
async def sandbox_client(
    *,
    neos: int = 200,
    seed: int = 1,
    catalogue: Catalogue | None = None,
    scenario: Scenario | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> AsyncIterator[SandboxClient]:
    """A client of an imitated NeoWs, open until the block ends.

    ::

        async with sandbox_client(scenario=Scenario(faults=(Outage(until_s=5),))) as client:
            receipt = await ingest(Settings(api_key="any", root=folder), client=client)

    :param neos: the number of synthetic objects in the catalogue
    :param seed: equal seeds give equal objects
    :param catalogue: used instead of synthetic objects
    :param scenario: faults, and the rules of the gateway (quotas, known keys); None has no faults
    :param clock: UTC, seconds since 1970. For tests in virtual time, pass it with a ``sleep`` of the same clock
    """
    app = SandboxApp(
        SyntheticCatalogue(neos, seed) if catalogue is None else catalogue,
        scenario=Scenario() if scenario is None else scenario,
        clock=clock,
        sleep=sleep,
        threads=clock is time.time,  # work in a thread takes real time
    )
    async with SandboxClient(app) as client:
        yield client
