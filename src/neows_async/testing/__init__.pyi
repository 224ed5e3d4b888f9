from neows_async.sandbox.app import SandboxApp, Served
from neows_async.sandbox.catalogue import RecordedPages, SyntheticCatalogue
from neows_async.sandbox.rate_limits import GatewayRules
from neows_async.sandbox.scenario import (
    Change,
    Cut,
    Endless,
    Hang,
    Html,
    Latency,
    Outage,
    OverRateLimit,
    Redirect,
    Refused,
    Replace,
    Scenario,
    ShortPage,
    Slow,
    Status,
    TruncatedGzip,
    TruncatedJson,
    WrongPage,
    WrongType,
)
from neows_async.sandbox.server import serving
from neows_async.testing.client import SandboxClient, sandbox_client
from neows_async.testing.conformance import AggregatorConformance, SinkConformance, SourceConformance
from neows_async.testing.fakes import ListSink, ListSource, browse_page
from neows_async.testing.storage_conformance import StorageConformance

__all__ = [
    "AggregatorConformance",
    "Change",
    "Cut",
    "Endless",
    "GatewayRules",
    "Hang",
    "Html",
    "Latency",
    "ListSink",
    "ListSource",
    "Outage",
    "OverRateLimit",
    "RecordedPages",
    "Redirect",
    "Refused",
    "Replace",
    "SandboxApp",
    "SandboxClient",
    "Scenario",
    "Served",
    "ShortPage",
    "SinkConformance",
    "Slow",
    "SourceConformance",
    "Status",
    "StorageConformance",
    "SyntheticCatalogue",
    "TruncatedGzip",
    "TruncatedJson",
    "WrongPage",
    "WrongType",
    "browse_page",
    "sandbox_client",
    "serving",
]
