"""The one table of our sinks, aggregators and aggregate writers.

A new part is one file in this package and one line here. The command line finds it by its name and lists it in
``run --help``; ``verify`` recomputes a new aggregator, the summary shows it, and ``prune`` knows its files.

Nothing is imported until a part is made, so that ``--help`` stays fast.
"""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from neows_async.settings import Settings

_PARQUET_FILE: Final = r"(?:[a-z_]+=[^/]+/)?part-\d{5,}\.parquet"


@dataclass(frozen=True, slots=True)
class RegisteredPart:
    """One part of ours.

    :param name: on the command line; an aggregator's own ``name`` is the same
    :param factory: ``module:attribute`` in this package; see :func:`build`
    :param help: a phrase for ``--help``
    :param files: of a sink, for each dataset that it writes: a pattern of the paths below ``<dataset>/snapshot=<id>/``
    :param receipt_names: how receipts call what the factory returns; empty is ``name``
    :param is_default: whether a run uses it if the caller names none
    """

    name: str
    factory: str
    help: str
    files: Mapping[str, str] = field(default_factory=dict)
    receipt_names: tuple[str, ...] = ()
    is_default: bool = True

    @property
    def in_receipts(self) -> tuple[str, ...]:
        """The names by which receipts call it."""
        return self.receipt_names or (self.name,)

    def make(self, settings: Settings) -> Any:
        """A new part, or a list of sinks."""
        module, _, attribute = self.factory.partition(":")
        factory: Any = importlib.import_module(f"neows_async.outputs.{module}")
        for name in attribute.split("."):
            factory = getattr(factory, name)
        return build(factory, settings)


SINKS: Final = (
    RegisteredPart(
        "parquet",
        "parquet:parquet_sinks",
        "Parquet files of each dataset",
        files={"neos": _PARQUET_FILE, "close_approaches": _PARQUET_FILE},
        receipt_names=("parquet:neos", "parquet:close_approaches"),
    ),
)
# Every run has it: rejected objects are always kept.
QUARANTINE: Final = RegisteredPart(
    "quarantine", "quarantine:QuarantineSink", "rejected objects", files={"quarantine": r"rejected\.jsonl"}
)
AGGREGATORS: Final = (
    RegisteredPart(
        "close_approaches_within",
        "close_approaches:CloseApproachesWithin.from_settings",
        "close approaches nearer than --within-au",
    ),
    RegisteredPart(
        "close_approaches_by_year",
        "close_approaches:CloseApproachesByYear.from_settings",
        "close approaches in each year",
    ),
)
# The name is also the suffix of the files.
AGGREGATE_WRITERS: Final = (
    RegisteredPart("json", "aggregate_files:JsonAggregates", "JSON files", receipt_names=("JsonAggregates",)),
    RegisteredPart(
        "csv", "aggregate_files:CsvAggregates", "CSV files", receipt_names=("CsvAggregates",), is_default=False
    ),
)


def build(factory: Callable[..., Any], settings: Settings) -> Any:
    """Call ``factory``, a class or function: with the run's settings if it has a parameter named ``settings``."""
    takes_settings = "settings" in inspect.signature(factory).parameters
    return factory(settings=settings) if takes_settings else factory()


def defaults(parts: tuple[RegisteredPart, ...]) -> tuple[str, ...]:
    """The names of those that a run uses if the caller names none."""
    return tuple(part.name for part in parts if part.is_default)


def find(parts: tuple[RegisteredPart, ...], receipt_name: str) -> RegisteredPart | None:
    """The one that a receipt calls ``receipt_name``; None if it is not one of ours."""
    return next((part for part in parts if receipt_name in part.in_receipts), None)


def listing(parts: tuple[RegisteredPart, ...]) -> str:
    """All of them in one phrase, for ``--help``."""
    return ", ".join(f"{part.name} ({part.help})" for part in parts)


def file_patterns() -> dict[str, str]:
    """For each dataset, a regular expression of the paths that our parts write below ``<dataset>/snapshot=<id>/``."""
    patterns = {dataset: pattern for part in (*SINKS, QUARANTINE) for dataset, pattern in part.files.items()}
    # From the registry: prune must know every file that a run can write, or it would leave it behind.
    names = "|".join(re.escape(part.name) for part in AGGREGATORS)
    suffixes = "|".join(re.escape(part.name) for part in AGGREGATE_WRITERS)
    patterns["aggregates"] = rf"(?:{names})\.(?:{suffixes})"
    return patterns
