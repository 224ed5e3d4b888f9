from neows_async import errors
from neows_async._version import __version__
from neows_async.api.defaults import open_sandbox
from neows_async.api.ingest import ingest, keep_newest, open_batches, open_neos
from neows_async.api.plan import RunPlan, plan
from neows_async.api.plan_facts import LakeFacts, PlanFacts, QuotaFacts
from neows_async.api.streams import Batches, BatchStream, NeoStream
from neows_async.endpoints.browse.envelope import raw_objects
from neows_async.endpoints.browse.neo import CloseApproach, Neo, objects
from neows_async.endpoints.browse.schema import CLOSE_APPROACHES, NEOS
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
    RateLimit,
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
from neows_async.lake.lake import Lake, open_lake
from neows_async.lake.receipt import Receipt
from neows_async.lake.storage import open_storage
from neows_async.lake.storage.interface import ObjectInfo, Storage
from neows_async.outputs.aggregate_files import CsvAggregates, JsonAggregates
from neows_async.outputs.close_approaches import CloseApproachesByYear, CloseApproachesWithin
from neows_async.outputs.parquet import ParquetSink
from neows_async.pacing.forecast import RunConditions
from neows_async.pacing.quota_store import MemoryQuotaStore, QuotaStore, SqliteQuotaStore
from neows_async.pacing.rules import API_DATA_GOV_BURSTS, Burst, PacingRules
from neows_async.pacing.simulation import SimulatedRun, Wait
from neows_async.pages.values import DatasetFile, Page, RawPage, Rejected
from neows_async.protocols import AggregateWriter, Aggregator, JsonAggregator, Sink, Source, Stage, StagedFile
from neows_async.settings import NASA_URL, Settings
from neows_async.sources.nasa import NasaSource
from neows_async.telemetry import events
from neows_async.telemetry.events import Event, Listener
from neows_async.telemetry.progress import Figures, Progress

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
    "JsonAggregates",
    "JsonAggregator",
    "KeyRefusedError",
    "Lake",
    "LakeFacts",
    "Listener",
    "MemoryQuotaStore",
    "NasaSource",
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
    "PlanFacts",
    "Progress",
    "QuotaFacts",
    "QuotaStore",
    "RateLimit",
    "RateLimitedError",
    "RawPage",
    "Receipt",
    "RefusedError",
    "Rejected",
    "RunConditions",
    "RunPlan",
    "Settings",
    "SettingsError",
    "SimulatedRun",
    "Sink",
    "SnapshotHeldError",
    "Source",
    "SourceError",
    "SqliteQuotaStore",
    "Stage",
    "StagedFile",
    "Storage",
    "StorageError",
    "TooManyRejectsError",
    "UnavailableError",
    "UnreachableError",
    "Wait",
    "__version__",
    "errors",
    "events",
    "ingest",
    "keep_newest",
    "objects",
    "open_batches",
    "open_lake",
    "open_neos",
    "open_sandbox",
    "open_storage",
    "plan",
    "raw_objects",
]

def names_of_stub(file: str, loader: object) -> dict[str, str]: ...
