"""What embedders call. Everything is an argument; nothing is read from the environment, set up or left behind."""

from __future__ import annotations

import datetime as dt
import importlib
import inspect
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from anyio import to_thread

from neows_async.api import defaults
from neows_async.api.streams import BatchStream, NeoStream
from neows_async.errors import SettingsError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.storage import open_storage
from neows_async.maintenance.prune import Rules, prune
from neows_async.pipeline import run, stream
from neows_async.pipeline.fetch_loop import UNPACED, Origin
from neows_async.sources import nasa as _gateway  # noqa: F401 - now, or the first call would hold its event loop up
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


async def ingest(  # noqa: PLR0913 - each is a seam, has a name, and may be left out
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
    """Fetch, save, aggregate, commit: a whole run, which leaves one snapshot in the lake.

    An unfinished snapshot of an earlier try with the same identity settings is resumed. What is None
    is the default part, made of ``settings``; sinks and aggregators are used up by a run.

    Cancelling it (a cancel scope, ``task.cancel()``, a time limit) ends it within a second, but for a
    commit that has begun, and leaves a state that the next call resumes.

    :param source: where pages come from; None is NeoWs at ``settings.base_url``, with ``settings.api_key``
    :param client: whose connections the default source uses (transport, proxies, TLS, event hooks), but
        not its headers, cookies, auth, time limits or redirects. It stays open, and yours
    :param storage: where the lake lies; None is ``settings.root``. Credentials of an object store come
        from where its client finds them, which is the environment, too
    :param sinks: take the pages, each under a name of its own; None is Parquet, one file set a dataset. An empty
        list writes none
    :param aggregators: fold the pages, each under a name of its own; None is ours
    :param aggregate_writer: writes their results; None is JSON
    :param pacing: what the source's gateway demands that its answers do not tell; None is what is known of
        NASA's for the default source there, and nothing for others
    :param quota_store: what runs with one key share, so that they keep to its quota together; None shares nothing
    :param on_event: a plain function, told what happens in the event loop's thread, in order; must be quick. One
        that raises is logged, as ``neows_async`` at ERROR, and told nothing more: a run does not fail for its watchers
    :returns: the receipt of the committed snapshot
    :raises SettingsError: a setting is wrong, or two of them do not go together; nothing was done
    :raises KeyRefusedError: the gateway does not take the key
    :raises SourceError: a page could not be had for as long as the settings allow
    :raises PausedError: the quota or the budget is spent, and the settings allow no longer wait
    :raises DataError: too much of the catalogue could not be read, or it is empty
    :raises SnapshotHeldError: another run writes this snapshot
    :raises StorageError: the lake could not be read or written
    :raises PartError: a part that was handed in failed; its own exception is the cause
    """
    listener = _listener(on_event)
    chosen_sinks = defaults.default_sinks(settings) if sinks is None else list(sinks)
    async with _origin(settings, source, client, pacing, quota_store) as origin:
        if storage is None:
            # In a thread: a local root is made and looked at.
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
    """Remove all but the newest ``keep`` snapshots of the lake, and what dead runs left that no run resumes.

    Never removes the latest, nor one from whose raw pages another one that stays was made, nor what a
    live run holds. May be cancelled at any time; the next call goes on.

    :param keep: at least 1
    :param storage: where the lake lies; None is ``settings.root``
    :raises StorageError: the lake failed
    :raises DataError: the receipt of the latest is damaged
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
    """Validated objects as they come, in Browse order, without a lake.

    ::

        async with open_neos(settings) as neos:
            async for neo in neos:
                print(neo.name, neo.closest_approach())

    Quota, retries, outages, limits and rejects are those of :func:`ingest`, and so are the parameters ``source``,
    ``client``, ``pacing``, ``quota_store`` and ``on_event``. Nothing is stored: what needs a lake (``root``,
    ``archive``, ``snapshot`` …) is ignored, and nothing can be resumed.

    *Backpressure.* At most ``settings.window_pages`` pages are fetched ahead of the reading (from an archive, where
    they wait without their JSON, four times as many), which is at most ``settings.queue_neos`` objects (or one page)
    ahead of whoever iterates; then no request goes out.

    *Rejected objects* are told to ``on_event`` and counted in ``neos.records``; more than ``max_rejects`` are an error.

    *A catalogue that changes* while it is read shifts its pages. What was given out cannot be taken back, so no id
    comes twice, the first wins; and if its size changed and all of it was wanted, it is read once more, at most
    ``max_generations`` times in all, for what was missed. ``neos.complete`` tells in the end.

    *Ending early*, by ``break``, an exception or a cancellation, ends all tasks and requests with the block. What
    the block raises comes out as it is. An error of the run is raised where the next object is asked for, after
    all that came before it: in particular :class:`~neows_async.errors.PausedError` when the quota (``max_wait_s``)
    or the budget (``budget_requests``) is spent; then begin anew from ``exc.resume_at_s`` on.

    :raises SettingsError: a setting is wrong, or two of them do not go together; nothing was asked for
    :raises NeowsError: as :func:`ingest`, while iterating
    """
    # The classes of the objects take tens of milliseconds to build: not on the loop, when the first one is made.
    await to_thread.run_sync(importlib.import_module, "neows_async.endpoints.browse.neo")
    async with _open_pages(settings, source, client, pacing, quota_store, on_event) as pages:
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
    """The same as Arrow record batches, a pair a page, at a fraction of the cost.

    ::

        async with open_batches(settings) as batches:
            async for neos, close_approaches in batches:
                ...

    Their schemas are :data:`neows_async.NEOS` and :data:`neows_async.CLOSE_APPROACHES`, the columns of the lake.
    Everything else is as with :func:`open_neos`.
    """
    async with _open_pages(settings, source, client, pacing, quota_store, on_event) as pages:
        yield BatchStream(pages)


@asynccontextmanager
async def _open_pages(
    settings: Settings,
    source: Source | None,
    client: httpx.AsyncClient | None,
    pacing: PacingRules | None,
    quota_store: QuotaStore | None,
    on_event: events.Listener | None,
) -> AsyncIterator[stream.PageStream]:
    listener = _listener(on_event)
    async with (
        _origin(settings, source, client, pacing, quota_store) as origin,
        stream.open_pages(settings, origin, listener) as pages,
    ):
        yield pages


@asynccontextmanager
async def _origin(
    settings: Settings,
    source: Source | None,
    client: httpx.AsyncClient | None,
    pacing: PacingRules | None,
    quota_store: QuotaStore | None,
) -> AsyncIterator[Origin]:
    """The source that was handed over, or the default one, open until the block ends."""
    if source is not None:
        if client is not None:
            raise SettingsError("a client is for the default source; give the source that you hand over its own")
        yield Origin(source, UNPACED if pacing is None else pacing, quota_store)
        return
    async with defaults.open_nasa(settings, client=client) as gateway:
        yield Origin(gateway, defaults.gateway_rules(settings) if pacing is None else pacing, quota_store)


def _listener(on_event: events.Listener | None) -> events.Listener:
    if on_event is None:
        return events.ignore
    if inspect.iscoroutinefunction(on_event) or inspect.iscoroutinefunction(getattr(on_event, "__call__", None)):  # noqa: B004 - not whether, but what
        raise SettingsError("on_event must be a plain function; nobody would await what a coroutine function gives")
    return _isolated(on_event)


def _isolated(listener: events.Listener) -> events.Listener:
    listening = True

    def tell(event: events.Event) -> None:
        nonlocal listening
        if listening:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - whatever it is, it is the listener's own, and logged
                listening = False
                _log.exception("on_event failed at %s; it is told nothing more of this run", type(event).__name__)

    return tell
