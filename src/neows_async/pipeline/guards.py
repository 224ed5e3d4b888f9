"""Holds parts that were handed in to what their protocols promise; whoever breaks it is named."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from neows_async.errors import NeowsError, PartError, SettingsError, most_relevant
from neows_async.pages.values import DatasetFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence

    from neows_async.pages.values import Page
    from neows_async.protocols import Aggregator, JsonAggregator, Sink, Source

_T = TypeVar("_T")
_OURS: Final = ("raw", "_runs", "_staging")


@contextmanager
def blaming(part: str) -> Iterator[None]:
    """Name the part in which something goes wrong that is not of our tree.

    :raises PartError: its cause is the part's own exception
    """
    try:
        yield
    except NeowsError:
        raise
    except Exception as exc:
        the_one = most_relevant(exc)
        if isinstance(the_one, NeowsError):
            raise the_one from the_one.__cause__
        raise PartError(f"{part} failed: {type(the_one).__name__}: {the_one}") from exc
    except asyncio.CancelledError as exc:
        if _cancelled():
            raise
        # A task group would take it for its own end, and what is left of the run for the whole.
        raise PartError(f"{part} failed: something that it waited for was cancelled") from exc


def _cancelled() -> bool:
    """Whether somebody cancelled this task of asyncio's; elsewhere, and in threads, nobody can have."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and (task.cancelling() > 0 or anyio.current_effective_deadline() == -math.inf)


async def await_part(name: str, awaitable: Awaitable[_T]) -> _T:
    """What ``awaitable`` gives; see :func:`blaming`."""
    with blaming(name):
        return await awaitable


def check_names(source: Source, sinks: Sequence[Sink] = (), aggregators: Sequence[Aggregator] = ()) -> None:
    """Ask all for what they are called, before anything is done.

    :raises PartError: one cannot say
    :raises SettingsError: two sinks, or two aggregators, are called the same
    """
    with blaming(f"the source {type(source).__name__}"):
        _ = source.origin, source.synthetic
    for kind, parts in (("sinks", sinks), ("aggregators", aggregators)):
        names: set[str] = set()
        for part in parts:
            with blaming(type(part).__name__):
                name = part.name
            if name in names:
                raise SettingsError(f"two {kind} are called {name!r}: what the one gives would pass for the other's")
            names.add(name)


def needs_json(parts: Iterable[Sink | Aggregator | JsonAggregator]) -> bool:
    """Whether one of ``parts`` reads the pages' JSON."""
    return any(getattr(part, "needs_json", False) for part in parts)


def update(aggregator: Aggregator | JsonAggregator, page: Page) -> None:
    """Pass the page's rows to an aggregator, with the page's objects if it needs them.

    :raises PartError: the aggregator failed
    """
    with blaming(aggregator.name):
        if getattr(aggregator, "needs_json", False):
            from neows_async.endpoints.browse.neo import raw_objects  # noqa: PLC0415 - loads pydantic

            aggregator.update_json(page.batches, raw_objects(page))  # type: ignore[union-attr]
        else:
            aggregator.update(page.batches)  # type: ignore[union-attr]


def all_files(found: Sequence[DatasetFile]) -> list[DatasetFile]:
    """``found``, if it is what the protocol promises: later there would be nobody to blame."""
    files = list(found)
    for file in files:
        if not isinstance(file, DatasetFile):
            raise TypeError(f"it gave a {type(file).__name__} where a DatasetFile was expected")
    return files


def refuse_clashes(files: Sequence[DatasetFile]) -> None:
    """Each file has one writer, and the folders of the lake itself have none but the lake.

    :raises PartError: it is not so
    """
    paths = Counter(file.path for file in files)
    for file in files:
        if paths[file.path] > 1:
            raise PartError(f"two parts wrote {file.path}; give one of them a dataset of its own")
        if file.dataset in _OURS:
            raise PartError(f"a part wrote {file.path}; {file.dataset}/ is the lake's own, use another dataset")


def as_plain_json(result: Mapping[str, Any]) -> dict[str, Any]:
    """``result`` as every JSON reader will see it: finite numbers, and keys that are text."""
    seen: dict[str, Any] = json.loads(json.dumps(dict(result), allow_nan=False))
    return seen
