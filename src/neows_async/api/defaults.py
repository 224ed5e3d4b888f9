"""Makes the default parts of a run from its settings, for embedders and for the command line."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from anyio import to_thread

from neows_async.errors import SettingsError
from neows_async.outputs import close_approaches, parquet, registry  # noqa: F401 - heavy: import Arrow before the loop runs
from neows_async.pacing.rules import API_DATA_GOV_BURSTS, PacingRules
from neows_async.settings import DEMO_KEY, NASA_URL, is_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from neows_async.protocols import AggregateWriter, Aggregator, Sink
    from neows_async.settings import Settings
    from neows_async.sources import nasa

_DEMO_DAILY: Final = 50
_SANDBOX_URL: Final = "https://sandbox.invalid"
# The embedded sandbox has one client, so it needs no quota.
_SANDBOX_LIMIT: Final = 1_000_000


@asynccontextmanager
async def open_nasa(
    settings: Settings, *, client: httpx.AsyncClient | None = None, proxy: str | None = None
) -> AsyncIterator[nasa.NasaSource]:
    """NeoWs at ``settings.base_url``, open until the block ends.

    :param client: sends the requests, and stays open; None makes a client
    :param proxy: of the client that this makes; not used for loopback addresses
    :raises SettingsError: there is no key, or a key must not be sent to this URL
    """
    from neows_async.sources import http_pool, nasa  # noqa: PLC0415 - they bring httpx; api.py imports them beforehand

    url = nasa.check_base_url(settings.base_url)
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    # Here and not in Settings: a rebuild or a sandbox needs no key.
    if not key:
        raise SettingsError(
            f"{url.host} needs a key: Settings(api_key=...); DEMO_KEY is enough for 200 objects, and "
            "https://api.nasa.gov gives one that is enough for all"
        )
    if client is not None:
        yield _source(settings, client, key)
        return
    # In a thread: it reads the trusted certificates from disk.
    transport = await to_thread.run_sync(
        lambda: http_pool.open_transport(
            connections=settings.concurrency, proxy=None if is_loopback(url.host) else proxy
        )
    )
    own = nasa.open_client(
        transport, connect_timeout_s=settings.connect_timeout_s, timeout_s=settings.request_timeout_s
    )
    # The client that we made is ours to close; the caller's stays open.
    async with own:
        yield _source(settings, own, key, transport)


def _source(
    settings: Settings, client: httpx.AsyncClient, key: str, transport: httpx.AsyncBaseTransport | None = None
) -> nasa.NasaSource:
    from neows_async.sources import nasa  # noqa: PLC0415 - as above

    return nasa.NasaSource(
        client,
        base_url=settings.base_url,
        api_key=key,
        transport=transport,
        timeout_s=settings.request_timeout_s,
        connect_timeout_s=settings.connect_timeout_s,
        max_body_bytes=settings.max_body_bytes,
    )


@asynccontextmanager
async def open_sandbox(settings: Settings, *, neos: int = 41_282, seed: int = 1) -> AsyncIterator[nasa.NasaSource]:
    """An imitation of NeoWs in this process, open until the block ends: synthetic objects, the real client, no key.

    :param neos: the number of its objects
    :param seed: equal seeds give equal objects
    """
    import httpx  # noqa: PLC0415 - slow to import, and only needed here

    from neows_async.sandbox.app import SandboxApp  # noqa: PLC0415 - as above
    from neows_async.sandbox.catalogue import SyntheticCatalogue  # noqa: PLC0415 - as above
    from neows_async.sandbox.rate_limits import Gateway  # noqa: PLC0415 - as above
    from neows_async.sandbox.transport import AsgiTransport  # noqa: PLC0415 - as above
    from neows_async.sources import nasa  # noqa: PLC0415 - as above

    app = SandboxApp(SyntheticCatalogue(neos, seed), gateway=Gateway(hourly_limit=_SANDBOX_LIMIT))
    transport = AsgiTransport(app)
    async with httpx.AsyncClient(transport=transport, timeout=settings.request_timeout_s, trust_env=False) as client:
        yield nasa.NasaSource(
            client,
            base_url=_SANDBOX_URL,
            api_key="sandbox",
            timeout_s=settings.request_timeout_s,
            max_body_bytes=settings.max_body_bytes,
            synthetic=True,
            origin=f"sandbox, {neos} objects of seed {seed}",
        )


def gateway_rules(settings: Settings) -> PacingRules:
    """The limits of the gateway at ``settings.base_url`` that its responses do not show."""
    is_nasas = urlsplit(settings.base_url).hostname == urlsplit(NASA_URL).hostname
    is_demo = settings.api_key is not None and settings.api_key.get_secret_value() == DEMO_KEY
    return PacingRules(
        # A rate that the user sets replaces the burst limits measured at api.nasa.gov.
        bursts=API_DATA_GOV_BURSTS if is_nasas and settings.max_rate_per_s is None else (),
        daily_limit=_DEMO_DAILY if is_demo else None,
    )


def default_sinks(settings: Settings) -> list[Sink]:
    """Parquet files of each dataset."""
    sinks: list[Sink] = []
    for part in registry.SINKS:
        if part.is_default:
            made = part.make(settings)
            sinks += made if isinstance(made, list) else [made]
    return sinks


def default_aggregators(settings: Settings) -> list[Aggregator]:
    """All default aggregators of the registry."""
    return [part.make(settings) for part in registry.AGGREGATORS if part.is_default]


def default_aggregate_writer(settings: Settings) -> AggregateWriter:
    """JSON files."""
    writer: AggregateWriter = next(part for part in registry.AGGREGATE_WRITERS if part.is_default).make(settings)
    return writer
