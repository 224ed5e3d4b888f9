"""Test tools for users of the library and for our own tests. A run needs none of them.

::

    fakes.py                  ListSource and ListSink: a source and a sink over lists; browse_page makes a page's JSON
    client.py                 an httpx client of the sandbox, for tests of a whole run without a socket
    conformance.py            SinkConformance, SourceConformance, AggregatorConformance: subclass, and pytest runs them
    storage_conformance.py    the same for a storage
    faulty_storage.py         a storage that counts its calls and fails where a test says

From the sandbox come, for scenarios: ``Scenario``, its faults (``Outage``, ``Slow``, ``TruncatedGzip`` ...),
``SandboxApp`` and the catalogues.

Promise: a part that passes its conformance tests works in every run, on asyncio and on trio. Our own parts pass the
same tests: tests/project/test_conformance.py. Start reading in conformance.py.

Each name loads its module when it is first used; ``__init__.pyi`` lists the names.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from neows_async import names_of_stub

_NAMES = names_of_stub(__file__, __spec__.loader)
__all__ = sorted(_NAMES)  # noqa: PLE0605 - type checkers read the stub's


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _NAMES[name]
    if "pytest" in sys.modules and module not in sys.modules:
        # Then a failed assertion in the module shows its values, as in a test file.
        sys.modules["pytest"].register_assert_rewrite(module)
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
