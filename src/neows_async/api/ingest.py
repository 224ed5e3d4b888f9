"""What embedders call: a run into a lake, and streams without one. Nothing is read from the environment."""

from __future__ import annotations

import datetime as dt
import importlib
import inspect
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyio import to_thread

import neows_async.sources.http_pool  # imported here, or the first call would block its event loop
import neows_async.sources.nasa  # noqa: F401 - as above
from neows_async.api import defaults
from neows_async.api.streams import BatchStream, NeoStream
from neows_async.errors import SettingsError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.storage import open_storage
from neows_async.maintenance.prune import Rules, prune
from neows_async.pipeline import run, stream
from neows_async.pipeline.fetch_loop import UNPACED, PacedSource
from neows_async.telemetry import events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import httpx

    from neows_async.lake.receipt import Receipt
    from neows_async.lake.storage.interface import Storage
    from neows_async.maintenance.prune import Pruned
    from neows_async.pacing.quota_store import QuotaStore
    from neows_async.pacing.rules import PacingRules
    from neows_async.protocols import AggregateWriter, Aggregator, JsonAggregator, Sink, Source
    from neows_async.settings import Settings

_log: Final = logging.getLogger("neows_async")
_log.addHandler(logging.NullHandler())


async def ingest(  # noqa: PLR0913 - each is an independent, named part, and may be left out
    settings: Settings,
    *,
    source: Source | None = None,
    client: httpx.AsyncClient | None = None,
    storage: Storage | None = None,
    sinks: Sequence[Sink] | None = None,
    aggregators: Sequence[Aggregator | JsonAggregator] | None = None,
    aggregate_writer: AggregateWriter | None = None,
    pacing: PacingRules | None = None,
    quota_store: QuotaStore | None = None,
    on_event: events.Listener | None = None,
) -> Receipt:
    """Run once: fetch, store, aggregate and commit one snapshot in the lake.

    An unfinished snapshot of an earlier run with the same identity settings is resumed. A part that is None is the
    default one, made from ``settings``. Sinks and aggregators serve one run.

    A cancellation (a cancel scope, ``task.cancel()``, a timeout) ends the run within a second, unless the commit has
    begun. The next call resumes the run.

    :param source: the source of the pages; None is NeoWs at ``settings.base_url``, with ``settings.api_key``
    :param client: the connections of the default source (transport, proxies, TLS, event hooks); its headers, cookies,
        auth, timeouts and redirects are not used. The caller closes it
    :param storage: the lake; None is ``settings.root``. An object store's client finds its credentials itself, which
        includes the environment
    :param sinks: write the pages, each with a name of its own; None is Parquet, one sink a dataset; an empty list
        writes no data
    :param aggregators: aggregate the pages, each with a name of its own; None is all of ours
    :param aggregate_writer: writes the aggregators' results; None is JSON
    :param pacing: limits of the source's gateway that its responses do not show; None is NASA's for the default
        source there, and none for other sources
    :param quota_store: shared by all runs with one key, so that together they stay within its quota; None shares
        nothing
    :param on_event: a plain function, called with each event in order, in the event loop's thread; it must be quick.
        If it raises, the exception is logged (``neows_async``, ERROR), and it is not called again. The run goes on
    :returns: the receipt of the committed snapshot
    :raises SettingsError: a setting is wrong, or two settings do not fit together; nothing was done
    :raises KeyRefusedError: the gateway refuses the key
    :raises SourceError: a page could not be fetched within the limits of the settings
    :raises PausedError: the quota or the budget is used up, and the settings allow no longer wait
    :raises DataError: the catalogue is empty, or too much of it could not be read
    :raises SnapshotHeldError: another run writes this snapshot
    :raises StorageError: the lake could not be read or written
    :raises PartError: a part of the caller failed; its exception is the cause
    """
    listener = _listener(on_event)
    # Before anything is opened: a wrong partition must not cost a request.
    chosen_sinks = defaults.default_sinks(settings) if sinks is None else list(sinks)
    options = _SourceOptions(source, client, pacing, quota_store)
    async with _open_origin(settings, options) as origin:
        if storage is None:
            # In a thread: it creates and inspects a local folder.
            storage = await to_thread.run_sync(open_storage, settings.root)
        return await run.ingest(
            settings,
            run.Parts(
                storage=storage,
                source=origin.source,
                source_name="nasa" if source is None else type(source).__name__,
                sinks=chosen_sinks,
                aggregators=defaults.default_aggregators(settings) if aggregators is None else list(aggregators),
                aggregate_writer=(
                    defaults.default_aggregate_writer(settings) if aggregate_writer is None else aggregate_writer
                ),
                pacing=origin.pacing,
                quota_store=quota_store,
            ),
            listener,
        )


async def keep_newest(settings: Settings, keep: int, *, storage: Storage | None = None) -> Pruned:
    """Remove all but the newest ``keep`` snapshots, and the leftovers of dead runs that no run would resume.

    It never removes the latest snapshot, a snapshot whose raw pages a kept one was made from, or the files of a live
    run. It may be cancelled at any time; the next call continues.

    :param keep: at least 1
    :param storage: the lake; None is ``settings.root``
    :raises StorageError: the lake could not be read or written
    :raises DataError: the receipt of the latest snapshot is damaged
    """
    if storage is None:
        storage = await to_thread.run_sync(open_storage, settings.root)
    lake = AsyncStorage(storage, timeout_s=settings.storage_timeout_s)
    rules = Rules(keep=keep, resume_within_s=settings.resume_within_s)
    return await prune(lake, rules, now=dt.datetime.now(dt.UTC))


@asynccontextmanager
async def open_neos(
    settings: Settings,
    *,
    source: Source | None = None,
    client: httpx.AsyncClient | None = None,
    pacing: PacingRules | None = None,
    quota_store: QuotaStore | None = None,
    on_event: events.Listener | None = None,
) -> AsyncIterator[NeoStream]:
    """Stream validated objects in Browse order, without a lake.

    ::

        async with open_neos(settings) as neos:
            async for neo in neos:
                print(neo.name, neo.closest_approach())

    Quota, retries, outages, limits and rejects work as in :func:`ingest`, and so do the parameters ``source``,
    ``client``, ``pacing``, ``quota_store`` and ``on_event``. Nothing is stored: settings of the lake (``root``,
    ``archive``, ``snapshot`` …) are ignored, and a stream cannot be resumed.

    *Backpressure.* The stream fetches at most ``settings.window_pages`` pages ahead of the consumer (from an archive,
    whose pages wait without their JSON, four times as many), and at most ``settings.queue_neos`` objects or one page.
    Then it sends no request.

    *Rejected objects* are events, and ``neos.records`` counts them. More than ``max_rejects`` raise an error.

    *A catalogue that changes* during the stream shifts its pages. Each id is delivered once, as first received. If the
    size changed and the whole catalogue is read, it is read again for missed objects, at most ``max_generations`` times
    in all. ``neos.complete`` is the result.

    *Ending early*, by ``break``, an exception or a cancellation, ends all tasks and requests with the block. An
    exception in the block is raised unchanged. An error of the run is raised after all objects before it. If it is a
    :class:`~neows_async.errors.PausedError`, since the quota (``max_wait_s``) or the budget (``budget_requests``) is
    used up, open a new stream after ``exc.resume_at_s``.

    :raises SettingsError: a setting is wrong, or two settings do not fit together; nothing was requested
    :raises NeowsError: as :func:`ingest`, during the iteration
    """
    # In a thread: importing pydantic's classes of the objects would block the event loop for tens of milliseconds.
    await to_thread.run_sync(importlib.import_module, "neows_async.endpoints.browse.neo")
    async with _open_pages(settings, _SourceOptions(source, client, pacing, quota_store), on_event) as pages:
        yield NeoStream(pages)


@asynccontextmanager
async def open_batches(
    settings: Settings,
    *,
    source: Source | None = None,
    client: httpx.AsyncClient | None = None,
    pacing: PacingRules | None = None,
    quota_store: QuotaStore | None = None,
    on_event: events.Listener | None = None,
) -> AsyncIterator[BatchStream]:
    """Stream Arrow record batches, a pair for each page, much faster than :func:`open_neos`.

    ::

        async with open_batches(settings) as batches:
            async for neos, close_approaches in batches:
                ...

    Their schemas are :data:`neows_async.NEOS` and :data:`neows_async.CLOSE_APPROACHES`, the columns of the lake.
    Everything else works as in :func:`open_neos`.
    """
    async with _open_pages(settings, _SourceOptions(source, client, pacing, quota_store), on_event) as pages:
        yield BatchStream(pages)


@dataclass(frozen=True, slots=True)
class _SourceOptions:
    """The parameters about the source that all three functions have; None is the default of :func:`ingest`."""

    source: Source | None
    client: httpx.AsyncClient | None
    pacing: PacingRules | None
    quota_store: QuotaStore | None


@asynccontextmanager
async def _open_pages(
    settings: Settings, options: _SourceOptions, on_event: events.Listener | None
) -> AsyncIterator[stream.PageStream]:
    listener = _listener(on_event)
    async with _open_origin(settings, options) as origin, stream.open_pages(settings, origin, listener) as pages:
        yield pages


@asynccontextmanager
async def _open_origin(settings: Settings, options: _SourceOptions) -> AsyncIterator[PacedSource]:
    """The caller's source, or the default one, open until the block ends."""
    if options.source is not None:
        # Refused, not ignored: the caller would believe that its proxy is used.
        if options.client is not None:
            raise SettingsError("a client is for the default source; a source of your own needs none here")
        yield PacedSource(options.source, options.pacing or UNPACED, options.quota_store)
        return
    async with defaults.open_nasa(settings, client=options.client) as nasa:
        yield PacedSource(nasa, options.pacing or defaults.gateway_rules(settings), options.quota_store)


def _listener(on_event: events.Listener | None) -> events.Listener:
    if on_event is None:
        return events.ignore
    # Its coroutines would be dropped without a word.
    if inspect.iscoroutinefunction(on_event) or inspect.iscoroutinefunction(getattr(on_event, "__call__", None)):  # noqa: B004 - its type matters, not whether it exists
        raise SettingsError("on_event must be a plain function; a coroutine function would never be awaited")
    return _isolated(on_event)


def _isolated(listener: events.Listener) -> events.Listener:
    """``listener``, but an exception in it does not fail the run: it is logged once, and ends the calls."""
    has_failed = False

    def listen(event: events.Event) -> None:
        nonlocal has_failed
        # Silent from then on: one broken listener must not fill the log.
        if has_failed:
            return
        try:
            listener(event)
        except Exception:  # noqa: BLE001 - any error of the caller's function; it is logged
            has_failed = True
            _log.exception("on_event failed at %s; it receives no more events of this run", type(event).__name__)

    return listen
