"""The sandbox behind an httpx client: NeoWs and its gateway, on good days and bad ones, without a socket."""

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
    """A client whose every request goes to :attr:`app`, whatever its host."""

    def __init__(self, app: SandboxApp) -> None:
        super().__init__(transport=AsgiTransport(app), trust_env=False)
        self.app = app
        """Its ``served`` are the requests that came, in order; ``attempts`` counts them by page."""


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
    """A client that talks to a faithful NeoWs, until the block ends.

    ::

        async with gateway(scenario=Scenario(faults=(Outage(until_s=5),))) as client:
            receipt = await ingest(Settings(api_key="any", root=folder), client=client)

    :param neos: how many made-up objects the catalogue has, from ``seed``
    :param catalogue: another one instead
    :param scenario: what goes wrong; None is a good day. Also the rules of the gateway: quotas, known keys
    :param clock: UTC, seconds since 1970; with ``sleep``, by the same clock, for tests in virtual time
    """
    app = SandboxApp(
        SyntheticCatalogue(neos, seed) if catalogue is None else catalogue,
        scenario=Scenario() if scenario is None else scenario,
        clock=clock,
        sleep=sleep,
        threads=clock is time.time,  # a thread's time is never virtual
    )
    async with SandboxClient(app) as client:
        yield client
