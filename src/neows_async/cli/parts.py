"""Parts by name: the only place where a string becomes a source, a sink or an aggregator.

A name is one of ours, or ``module:attribute``, or an entry point of one of the groups
``neows_async.sources``, ``neows_async.sinks``, ``neows_async.aggregators`` and
``neows_async.aggregate_writers``. What it names is a class or function that returns the part (a sink's may
return a list of sinks). If it has a parameter called ``settings``, it is given the run's
:class:`~neows_async.settings.Settings`.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from neows_async.errors import SettingsError
from neows_async.outputs import registry

if TYPE_CHECKING:
    from neows_async.lake.raw_zone import RawLocation
    from neows_async.lake.storage.interface import Storage
    from neows_async.pacing.quota_store import QuotaStore
    from neows_async.pacing.rules import PacingRules
    from neows_async.pipeline.run import Parts
    from neows_async.protocols import Aggregator, Sink, Source
    from neows_async.settings import Settings

_PART_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which parts a command names.

    :param source: ``nasa``, ``archive``, ``sandbox`` or a name of somebody else's
    :param raw: what ``archive`` reads
    :param share_quota: with other runs of this user on this machine that use the same key
    """

    source: str
    raw: RawLocation | None
    sinks: tuple[str, ...]
    aggregators: tuple[str, ...]
    aggregate_writer: str
    sandbox_neos: int
    sandbox_seed: int
    share_quota: bool = True


@asynccontextmanager
async def open_parts(settings: Settings, chosen: Chosen) -> AsyncIterator[Parts]:
    """The parts, open until the block ends.

    :raises SettingsError: a name means nothing
    :raises StorageError: the root cannot be used
    """
    from neows_async.lake.storage import open_storage  # noqa: PLC0415 - as above
    from neows_async.pipeline.run import Parts  # noqa: PLC0415 - heavy: it brings Arrow

    sinks = _sinks(settings, chosen.sinks)
    aggregators = _aggregators(settings, chosen.aggregators)
    storage = open_storage(settings.root)
    async with AsyncExitStack() as stack:
        yield Parts(
            storage=storage,
            source=await open_source(settings, chosen, storage, stack),
            source_name=chosen.source,
            sinks=sinks,
            aggregators=aggregators,
            aggregate_writer=_named("aggregate-writer", chosen.aggregate_writer, _AGGREGATE_WRITERS)(settings),
            parent=chosen.raw.named if chosen.raw else None,
            raw_snapshot=chosen.raw.snapshot if chosen.raw else None,
            pacing=pacing_rules(settings, chosen),
            quota_store=await open_ledger(settings, chosen, stack),
        )


async def open_ledger(settings: Settings, chosen: Chosen, stack: AsyncExitStack) -> QuotaStore | None:
    """Where runs with the same key find each other; None for a source without a gateway of others."""
    from neows_async.cli.config import ledger_path  # noqa: PLC0415 - only for a run

    path = ledger_path()
    if chosen.source != "nasa" or not chosen.share_quota or path is None:
        return None
    from neows_async.pacing.quota_store import SqliteQuotaStore  # noqa: PLC0415 - it brings SQLite
    from neows_async.sources.nasa import check_base_url, is_loopback  # noqa: PLC0415 - it brings httpx

    url = check_base_url(settings.base_url)
    return await stack.enter_async_context(
        SqliteQuotaStore(
            path,
            host=url.netloc.decode("ascii"),
            api_key=settings.api_key.get_secret_value() if settings.api_key else "",
            # A gateway on this machine is an imitation, and counts anew whenever it is started.
            lasting=not is_loopback(url.host),
        )
    )


def pacing_rules(settings: Settings, chosen: Chosen) -> PacingRules:
    """What is known of the gateway's demands that its answers do not tell."""
    from neows_async.pacing.rules import PacingRules  # noqa: PLC0415 - only for a run

    if chosen.source != "nasa":
        return PacingRules(bursts=())
    from neows_async.api import defaults  # noqa: PLC0415 - heavy: it brings Arrow and httpx

    return defaults.gateway_rules(settings)


async def open_source(settings: Settings, chosen: Chosen, storage: Storage, stack: AsyncExitStack) -> Source:
    """The source that was chosen, open for as long as ``stack``."""
    if chosen.source == "archive":
        return _archive(settings, chosen, storage)
    if chosen.source not in _SOURCES:
        source: Source = _whole("source", chosen.source, _named("source", chosen.source, {})(settings))
        return source
    from neows_async.api import defaults  # noqa: PLC0415 - heavy: it brings Arrow and httpx

    if chosen.source == "nasa":
        from neows_async.cli.config import proxy_for  # noqa: PLC0415 - with httpx alone
        from neows_async.sources import nasa  # noqa: PLC0415 - it brings httpx

        proxy = proxy_for(nasa.check_base_url(settings.base_url).host)
        return await stack.enter_async_context(defaults.open_nasa(settings, proxy=proxy))
    return await stack.enter_async_context(
        defaults.open_sandbox(settings, neos=chosen.sandbox_neos, seed=chosen.sandbox_seed)
    )


def _archive(settings: Settings, chosen: Chosen, storage: Storage) -> Source:
    from neows_async.lake.async_storage import AsyncStorage  # noqa: PLC0415 - as in open_parts
    from neows_async.lake.raw_zone import RawZone  # noqa: PLC0415 - as above
    from neows_async.sources.archive import ArchiveSource  # noqa: PLC0415 - as above

    if chosen.raw is None:
        raise SettingsError("--source archive needs --from-snapshot ID: whose raw pages to read")
    lake = AsyncStorage(storage, timeout_s=settings.storage_timeout_s)
    zone = RawZone(lake, chosen.raw.snapshot, max_body_bytes=settings.max_body_bytes)
    return ArchiveSource(zone, snapshot=chosen.raw.snapshot, synthetic=chosen.raw.synthetic)


# -- sinks and aggregators ----------------------------------------------------------------------


Factory = Callable[..., Any]
# See neows_async.protocols.
_MEMBERS: Final = {
    "source": ("origin", "synthetic", "fetch"),
    "sink": ("name", "open", "write", "finish", "commit"),
    "aggregator": ("name", "update", "merge", "result"),
    "aggregator with needs_json": ("name", "update_json", "merge", "result"),
}
_SINKS: Final[dict[str, Factory]] = {part.name: part.make for part in registry.SINKS}
_AGGREGATORS: Final[dict[str, Factory]] = {part.name: part.make for part in registry.AGGREGATORS}
_AGGREGATE_WRITERS: Final[dict[str, Factory]] = {part.name: part.make for part in registry.AGGREGATE_WRITERS}
_SOURCES: Final = ("nasa", "sandbox", "archive")


def all_ours(chosen: Chosen) -> bool:
    """Whether no code of somebody else's is among the parts."""
    return (
        chosen.source in _SOURCES
        and _SINKS.keys() >= {*chosen.sinks}
        and _AGGREGATORS.keys() >= {*chosen.aggregators}
        and chosen.aggregate_writer in _AGGREGATE_WRITERS
    )


def _sinks(settings: Settings, names: Sequence[str]) -> list[Sink]:
    sinks: list[Sink] = []
    for name in names:
        made = _named("sink", name, _SINKS)(settings)
        sinks += (_whole("sink", name, sink) for sink in (made if isinstance(made, list) else [made]))
    _require_names("sink", [sink.name for sink in sinks])
    return sinks


def _aggregators(settings: Settings, names: Sequence[str]) -> list[Aggregator]:
    aggregators = [_whole("aggregator", name, _named("aggregator", name, _AGGREGATORS)(settings)) for name in names]
    _require_names("aggregator", [aggregator.name for aggregator in aggregators])
    return aggregators


def _whole(kind: str, name: str, part: Any) -> Any:
    """``part``, if it has what its protocol says: better known before the first request than after the last."""
    reads_json = kind == "aggregator" and getattr(part, "needs_json", False)
    of_kind = f"{kind} with needs_json" if reads_json else kind
    lacking = [member for member in _MEMBERS[of_kind] if not hasattr(part, member)]
    if lacking:
        members = ", ".join(_MEMBERS[of_kind])
        raise SettingsError(f"--{kind} {name} has no {', '.join(lacking)}; a {of_kind} has {members}")
    return part


def _require_names(kind: str, names: Sequence[str]) -> None:
    for name in names:
        if not _PART_NAME.fullmatch(str(name)):
            raise SettingsError(f"--{kind}: {name!r} is no usable name; it has letters, digits, '.', '_', ':', '-'")
        if names.count(name) > 1:
            raise SettingsError(f"--{kind}: two of them are called {name!r}; give each once")


def _named(kind: str, name: str, ours: Mapping[str, Factory]) -> Factory:
    if name in ours:
        return ours[name]
    if ":" in name:
        return _imported(kind, name)
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow to load, and seldom needed

    group = f"neows_async.{kind.replace('-', '_')}s"
    for point in entry_points(group=group, name=name):
        return _loaded(kind, name, point.load)
    known = sorted({*ours, *entry_points(group=group).names})
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(known) or 'none'}"
    raise SettingsError(f"--{kind}: there is no {name!r}; {hint} One of your own is named module:attribute")


def _imported(kind: str, name: str) -> Factory:
    module, _, attribute = name.partition(":")

    def load() -> Factory:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found  # type: ignore[no-any-return]  # whatever it is, it is called

    # As `python -m` does: a part may lie beside the data it is for.
    if os.getcwd() not in sys.path and "" not in sys.path:  # noqa: PTH109 - sys.path holds strings
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as above
    return _loaded(kind, name, load)


def _loaded(kind: str, name: str, load: Callable[[], Factory]) -> Factory:
    try:
        factory = load()
    except Exception as exc:
        raise SettingsError(f"--{kind} {name} cannot be loaded: {type(exc).__name__}: {exc}") from exc
    if not callable(factory):
        raise SettingsError(f"--{kind} {name} is no class or function; it must return the {kind}")

    def build(settings: Settings) -> Any:
        try:
            return registry.build(factory, settings)
        except Exception as exc:
            raise SettingsError(f"--{kind} {name} cannot be made: {type(exc).__name__}: {exc}") from exc

    return build
