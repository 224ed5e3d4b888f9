"""Makes parts from names: the only place where a string becomes a source, a sink or an aggregator.

A name is one of ours, or ``module:attribute``, or an entry point of one of the groups ``neows_async.sources``,
``neows_async.sinks``, ``neows_async.aggregators`` and ``neows_async.aggregate_writers``. It names a class or a function
that returns the part; for a sink, also a list of sinks. If that has a parameter ``settings``, it gets the run's
:class:`~neows_async.settings.Settings`.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from neows_async.api import defaults
from neows_async.cli.config import proxy_for, quota_store_path
from neows_async.errors import SettingsError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.raw_zone import RawLocation, RawZone
from neows_async.lake.storage import open_storage
from neows_async.outputs import registry
from neows_async.pacing.quota_store import SqliteQuotaStore
from neows_async.pacing.rules import PacingRules
from neows_async.pipeline.run import Parts
from neows_async.settings import is_loopback
from neows_async.sources.archive import ArchiveSource

if TYPE_CHECKING:
    import httpx

    from neows_async.lake.storage.interface import Storage
    from neows_async.outputs.registry import RegisteredPart
    from neows_async.pacing.quota_store import QuotaStore
    from neows_async.protocols import Aggregator, Sink, Source
    from neows_async.settings import Settings

_PART_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartNames:
    """The names of the parts that a command uses.

    :param source: ``nasa``, ``archive``, ``sandbox``, or another part's name
    :param raw: the raw pages that ``archive`` reads
    :param share_quota: with this user's other runs on this machine that use the same key
    """

    source: str
    raw: RawLocation | None = None
    sinks: tuple[str, ...] = ()
    aggregators: tuple[str, ...] = ()
    aggregate_writer: str = "json"
    sandbox_neos: int = 0
    sandbox_seed: int = 0
    share_quota: bool = True


@asynccontextmanager
async def open_parts(settings: Settings, names: PartNames) -> AsyncIterator[Parts]:
    """The parts, open until the block ends."""
    # Before the source: wrong names must not cost a request.
    sinks = _sinks(settings, names.sinks)
    aggregators = _aggregators(settings, names.aggregators)
    # After the names, before the source: a wrong root must not cost a request either.
    storage = open_storage(settings.root)
    async with AsyncExitStack() as stack:
        yield Parts(
            storage=storage,
            source=await open_source(settings, names, storage, stack),
            source_name=names.source,
            sinks=sinks,
            aggregators=aggregators,
            aggregate_writer=_make("aggregate-writer", names.aggregate_writer, registry.AGGREGATE_WRITERS, settings),
            parent=names.raw.named if names.raw else None,
            raw_snapshot=names.raw.snapshot if names.raw else None,
            pacing=pacing_rules(settings, names),
            quota_store=await open_quota_store(settings, names, stack),
        )


async def open_quota_store(settings: Settings, names: PartNames, stack: AsyncExitStack) -> QuotaStore | None:
    """Where runs with the same key share its quota; None for a source that is not NASA's, or without sharing."""
    path = quota_store_path()
    # Only NASA's gateway counts; another source has no key to share.
    if names.source != "nasa" or not names.share_quota or path is None:
        return None
    url = _base_url(settings)
    return await stack.enter_async_context(
        SqliteQuotaStore(
            path,
            host=url.netloc.decode("ascii"),
            api_key=settings.api_key.get_secret_value() if settings.api_key else "",
            # A gateway on this machine is an imitation: its counts start again with each of its starts.
            lasting=not is_loopback(url.host),
        )
    )


def _base_url(settings: Settings) -> httpx.URL:
    from neows_async.sources.nasa import check_base_url  # noqa: PLC0415 - httpx, which an archive does without

    return check_base_url(settings.base_url)


def pacing_rules(settings: Settings, names: PartNames) -> PacingRules:
    """The source's rate limits that its responses do not show."""
    return defaults.gateway_rules(settings) if names.source == "nasa" else PacingRules(bursts=())


async def open_source(settings: Settings, names: PartNames, storage: Storage, stack: AsyncExitStack) -> Source:
    """The source, open until ``stack`` is closed."""
    if names.source == "archive":
        return _archive(settings, names, storage)
    if names.source == "nasa":
        proxy = proxy_for(_base_url(settings).host)
        return await stack.enter_async_context(defaults.open_nasa(settings, proxy=proxy))
    if names.source == "sandbox":
        return await stack.enter_async_context(
            defaults.open_sandbox(settings, neos=names.sandbox_neos, seed=names.sandbox_seed)
        )
    source: Source = _complete("source", names.source, _make("source", names.source, (), settings))
    return source


def _archive(settings: Settings, names: PartNames, storage: Storage) -> Source:
    if names.raw is None:
        raise SettingsError("--source archive needs --from-snapshot ID, the snapshot whose raw pages to read")
    lake = AsyncStorage(storage, timeout_s=settings.storage_timeout_s)
    zone = RawZone(lake, names.raw.snapshot, max_body_bytes=settings.max_body_bytes)
    return ArchiveSource(zone, snapshot=names.raw.snapshot, synthetic=names.raw.synthetic)


# -- sinks and aggregators ----------------------------------------------------------------------


Factory = Callable[..., Any]
# The members of the protocols in neows_async.protocols.
_MEMBERS: Final = {
    "source": ("origin", "synthetic", "fetch"),
    "sink": ("name", "open", "write", "finish", "commit"),
    "aggregator": ("name", "update", "merge", "result"),
    "aggregator with needs_json": ("name", "update_json", "merge", "result"),
}


def _sinks(settings: Settings, names: Sequence[str]) -> list[Sink]:
    sinks: list[Sink] = []
    for name in names:
        made = _make("sink", name, registry.SINKS, settings)
        sinks += (_complete("sink", name, sink) for sink in (made if isinstance(made, list) else [made]))
    _require_names("sink", [sink.name for sink in sinks])
    return sinks


def _aggregators(settings: Settings, names: Sequence[str]) -> list[Aggregator]:
    made = [_complete("aggregator", name, _make("aggregator", name, registry.AGGREGATORS, settings)) for name in names]
    _require_names("aggregator", [aggregator.name for aggregator in made])
    return made


def _complete(kind: str, name: str, part: Any) -> Any:
    """``part``, if it has all members of its protocol. A missing one would otherwise show after the last request."""
    needs_json = kind == "aggregator" and getattr(part, "needs_json", False)
    protocol = f"{kind} with needs_json" if needs_json else kind
    members = _MEMBERS[protocol]
    missing = [member for member in members if not hasattr(part, member)]
    if missing:
        raise SettingsError(f"--{kind} {name} has no {', '.join(missing)}; a {protocol} has {', '.join(members)}")
    return part


def _require_names(kind: str, names: Sequence[str]) -> None:
    for name in names:
        if not _PART_NAME.fullmatch(str(name)):
            raise SettingsError(
                f"--{kind}: {name!r} is not a valid name; use letters, digits, '.', '_', ':' and '-', 64 at most"
            )
        if names.count(name) > 1:
            raise SettingsError(f"--{kind}: two parts have the name {name!r}; give each once")


def _make(kind: str, name: str, ours: Sequence[RegisteredPart], settings: Settings) -> Any:
    for part in ours:
        if part.name == name:
            # Ours first: an installed entry point cannot replace a part of ours.
            return part.make(settings)
    factory = _load(kind, name, [part.name for part in ours])
    if not callable(factory):
        raise SettingsError(f"--{kind} {name} is not a class or function that returns the {kind}")
    try:
        return registry.build(factory, settings)
    except Exception as exc:
        raise SettingsError(f"--{kind} {name} cannot be made: {type(exc).__name__}: {exc}") from exc


def _load(kind: str, name: str, ours: Sequence[str]) -> Factory:
    try:
        # Imports and runs code of the user, so every error of it is caught and named.
        if ":" in name:
            return _import(name)
        group = f"neows_async.{kind.replace('-', '_')}s"
        for point in entry_points(group=group, name=name):
            loaded: Factory = point.load()
            return loaded
    except Exception as exc:
        raise SettingsError(f"--{kind} {name} cannot be loaded: {type(exc).__name__}: {exc}") from exc
    known = sorted({*ours, *entry_points(group=group).names})
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(known) or 'none'}."
    raise SettingsError(f"--{kind}: there is no {name!r}; {hint} Name a part of your own as module:attribute")


def _import(name: str) -> Factory:
    module, _, attribute = name.partition(":")
    # As `python -m` does, so that a part can be in the working directory.
    if os.getcwd() not in sys.path and "" not in sys.path:  # noqa: PTH109 - sys.path holds strings
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as above
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]  # _make checks that it can be called
