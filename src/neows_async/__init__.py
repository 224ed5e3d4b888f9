"""Near-Earth objects from NASA's NeoWs into a Parquet data lake.

Importing this package costs next to nothing and does nothing: each public name loads its module when it is
first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from neows_async import errors, events
    from neows_async.aggregates.by_year import CloseApproachesByYear
    from neows_async.aggregates.csv_files import CsvAggregates
    from neows_async.aggregates.json_files import JsonAggregates
    from neows_async.aggregates.within import CloseApproachesWithin
    from neows_async.api import ingest, keep_newest, open_batches, open_neos
    from neows_async.errors import (
        AlreadyExistsError,
        AttemptError,
        BadPageError,
        DataError,
        DifferenceError,
        EmptyCatalogueError,
        KeyRefusedError,
        NeowsError,
        NotFoundError,
        OutageError,
        PartError,
        PausedError,
        RateLimitedError,
        RefusedError,
        SettingsError,
        SnapshotHeldError,
        SourceError,
        StorageError,
        TooManyRejectsError,
        UnavailableError,
        UnreachableError,
    )
    from neows_async.events import Event, Listener
    from neows_async.ledger import FileLedger, MemoryLedger
    from neows_async.model import CloseApproach, Neo
    from neows_async.pacing import API_DATA_GOV_BURSTS, Burst, PacingRules
    from neows_async.page import DatasetFile, ObjectInfo, Page, RawPage, Rejected
    from neows_async.parts import open_sandbox
    from neows_async.progress import Figures, Progress
    from neows_async.protocols import (
        AggregateWriter,
        Aggregator,
        Ledger,
        Sink,
        Source,
        Stage,
        StagedFile,
        Storage,
    )
    from neows_async.rate_limit import RateLimit
    from neows_async.receipt import Receipt
    from neows_async.schema import CLOSE_APPROACHES, NEOS
    from neows_async.settings import NASA_URL, Settings
    from neows_async.sinks.parquet import ParquetSink
    from neows_async.sources.gateway import GatewaySource
    from neows_async.storage import open_storage
    from neows_async.streams import Batches, BatchStream, NeoStream
    from neows_async.version import __version__

__all__ = [
    "API_DATA_GOV_BURSTS",
    "CLOSE_APPROACHES",
    "NASA_URL",
    "NEOS",
    "AggregateWriter",
    "Aggregator",
    "AlreadyExistsError",
    "AttemptError",
    "BadPageError",
    "BatchStream",
    "Batches",
    "Burst",
    "CloseApproach",
    "CloseApproachesByYear",
    "CloseApproachesWithin",
    "CsvAggregates",
    "DataError",
    "DatasetFile",
    "DifferenceError",
    "EmptyCatalogueError",
    "Event",
    "Figures",
    "FileLedger",
    "GatewaySource",
    "JsonAggregates",
    "KeyRefusedError",
    "Ledger",
    "Listener",
    "MemoryLedger",
    "Neo",
    "NeoStream",
    "NeowsError",
    "NotFoundError",
    "ObjectInfo",
    "OutageError",
    "PacingRules",
    "Page",
    "ParquetSink",
    "PartError",
    "PausedError",
    "Progress",
    "RateLimit",
    "RateLimitedError",
    "RawPage",
    "Receipt",
    "RefusedError",
    "Rejected",
    "Settings",
    "SettingsError",
    "Sink",
    "SnapshotHeldError",
    "Source",
    "SourceError",
    "Stage",
    "StagedFile",
    "Storage",
    "StorageError",
    "TooManyRejectsError",
    "UnavailableError",
    "UnreachableError",
    "__version__",
    "errors",
    "events",
    "ingest",
    "keep_newest",
    "open_batches",
    "open_neos",
    "open_sandbox",
    "open_storage",
]

_NAMES: Final = {
    "aggregates.by_year": ("CloseApproachesByYear",),
    "aggregates.csv_files": ("CsvAggregates",),
    "aggregates.json_files": ("JsonAggregates",),
    "aggregates.within": ("CloseApproachesWithin",),
    "api": ("ingest", "keep_newest", "open_batches", "open_neos"),
    "errors": tuple(name for name in __all__ if name.endswith("Error")),
    "events": ("Event", "Listener"),
    "ledger": ("FileLedger", "MemoryLedger"),
    "model": ("CloseApproach", "Neo"),
    "pacing": ("API_DATA_GOV_BURSTS", "Burst", "PacingRules"),
    "parts": ("open_sandbox",),
    "page": ("DatasetFile", "ObjectInfo", "Page", "RawPage", "Rejected"),
    "progress": ("Figures", "Progress"),
    "protocols": ("AggregateWriter", "Aggregator", "Ledger", "Sink", "Source", "Stage", "StagedFile", "Storage"),
    "rate_limit": ("RateLimit",),
    "receipt": ("Receipt",),
    "schema": ("CLOSE_APPROACHES", "NEOS"),
    "settings": ("NASA_URL", "Settings"),
    "sinks.parquet": ("ParquetSink",),
    "sources.gateway": ("GatewaySource",),
    "storage": ("open_storage",),
    "streams": ("BatchStream", "Batches", "NeoStream"),
    "version": ("__version__",),
}
_MODULES: Final = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in ("errors", "events"):
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value  # the next time it is found without us
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
