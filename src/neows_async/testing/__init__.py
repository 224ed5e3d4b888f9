"""To test with: fakes, the sandbox behind a client, and what a part of your own must do to be swapped for ours.

Each name loads its module when it is first used. Nothing here is needed by a run.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from neows_async.sandbox.app import SandboxApp, Served
    from neows_async.sandbox.catalogue import RecordedPages, SyntheticCatalogue
    from neows_async.sandbox.gateway import GatewayRules
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
    from neows_async.testing.conformance import AggregatorConformance, SinkConformance, SourceConformance
    from neows_async.testing.fakes import ListSink, ListSource, browse_page
    from neows_async.testing.sandboxed import SandboxClient, gateway
    from neows_async.testing.storages import StorageConformance

_NAMES: Final = {
    "sandbox.app": ("SandboxApp", "Served"),
    "sandbox.catalogue": ("RecordedPages", "SyntheticCatalogue"),
    "sandbox.gateway": ("GatewayRules",),
    "sandbox.scenario": (
        *("Change", "Cut", "Endless", "Hang", "Html", "Latency", "Outage", "OverRateLimit", "Redirect", "Refused"),
        *("Replace", "Scenario", "ShortPage", "Slow", "Status", "TruncatedGzip", "TruncatedJson", "WrongPage"),
        "WrongType",
    ),
    "sandbox.server": ("serving",),
    "testing.conformance": ("AggregatorConformance", "SinkConformance", "SourceConformance"),
    "testing.fakes": ("ListSink", "ListSource", "browse_page"),
    "testing.sandboxed": ("SandboxClient", "gateway"),
    "testing.storages": ("StorageConformance",),
}
_MODULES: Final = {name: module for module, names in _NAMES.items() for name in names}

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
    "gateway",
    "serving",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = f"neows_async.{_MODULES[name]}"
    if "pytest" in sys.modules and module not in sys.modules:
        # So that a failed assertion in here shows its values, as in a test file.
        sys.modules["pytest"].register_assert_rewrite(module)
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
