"""Checks that the user's parts keep their protocols, and names the part that does not."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio

from neows_async.errors import NeowsError, PartError, SettingsError, most_relevant
from neows_async.lake.layout import RESERVED
from neows_async.pages.values import DatasetFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from neows_async.protocols import Aggregator, JsonAggregator, Sink, Source


@contextmanager
def blaming(part: str) -> Iterator[None]:
    """Turn an unknown exception of the block into a PartError that names the part; it is the cause."""
    try:
        yield
    except NeowsError:
        raise
    except Exception as exc:
        # A part with a task group raises groups; an error of this tree in it keeps its meaning.
        relevant = most_relevant(exc)
        if isinstance(relevant, NeowsError):
            raise relevant from relevant.__cause__
        raise PartError(f"{part} failed: {type(relevant).__name__}: {relevant}") from exc
    except asyncio.CancelledError as exc:
        if _cancelled():
            raise
        # Nobody cancelled this task: the part awaited a task that was. A task group would end as if its work were done.
        raise PartError(f"{part} failed: a task that it awaited was cancelled") from exc


def _cancelled() -> bool:
    """Whether this asyncio task was cancelled; False in threads and on other loops."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and (task.cancelling() > 0 or anyio.current_effective_deadline() == -math.inf)


def check_names(
    source: Source, sinks: Sequence[Sink] = (), aggregators: Sequence[Aggregator | JsonAggregator] = ()
) -> None:
    """Check the parts' names, and the aggregators' methods, before anything is done.

    :raises PartError: a part has no name, or an aggregator cannot take what a run passes to it
    :raises SettingsError: two sinks, or two aggregators, have the same name
    """
    with blaming(f"the source {type(source).__name__}"):
        _ = source.origin, source.synthetic
    for kind, parts in (("sinks", sinks), ("aggregators", aggregators)):
        names: set[str] = set()
        for part in parts:
            with blaming(type(part).__name__):
                name = part.name
            if name in names:
                raise SettingsError(f"two {kind} have the name {name!r}; give one of them another name")
            names.add(name)
    for aggregator in aggregators:
        _check_update(aggregator)


def _check_update(aggregator: Aggregator | JsonAggregator) -> None:
    arguments = ("batches", "objects") if getattr(aggregator, "needs_json", False) else ("batches",)
    method = "update_json" if len(arguments) > 1 else "update"
    wanted = f"{method}({', '.join(arguments)})"
    function: Any = getattr(aggregator, method, None)
    if inspect.iscoroutinefunction(function):  # a call would do nothing, and the figures would be wrong
        raise PartError(f"{wanted} of the aggregator {aggregator.name} must not be async: a thread calls it")
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as exc:
        raise PartError(f"the aggregator {aggregator.name} has no method {wanted}; see neows_async.Aggregator") from exc
    except ValueError:  # a function written in C may have no signature that Python can read
        pass


def needs_json(parts: Iterable[Sink | Aggregator | JsonAggregator]) -> bool:
    """Whether one of ``parts`` reads the pages' JSON."""
    return any(getattr(part, "needs_json", False) for part in parts)


def all_files(found: Sequence[DatasetFile]) -> list[DatasetFile]:
    """``found``, checked here, where the part is known that returned it."""
    files = list(found)
    for file in files:
        if not isinstance(file, DatasetFile):
            raise TypeError(f"it returned a {type(file).__name__} instead of a DatasetFile")
    return files


def refuse_clashes(files: Sequence[DatasetFile]) -> None:
    """Check that no two parts wrote the same file, and that none wrote into the lake's own folders."""
    paths = Counter(file.path for file in files)
    for file in files:
        if paths[file.path] > 1:
            raise PartError(f"two parts wrote {file.path}; give one of them another dataset")
        if file.dataset in RESERVED:
            raise PartError(f"a part wrote {file.path}; {file.dataset}/ belongs to the lake, use another dataset")


def as_plain_json(result: Mapping[str, Any]) -> dict[str, Any]:
    """``result`` as JSON readers see it: finite numbers, and keys that are text."""
    # Through JSON once, here: a NaN would make the receipt unreadable after the commit.
    plain: dict[str, Any] = json.loads(json.dumps(dict(result), allow_nan=False))
    return plain
