"""To test with: fakes, the sandbox behind a client, and conformance suites for parts of users.

Each name loads its module when it is first used. Nothing here is needed by a run. ``__init__.pyi`` lists the names.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from neows_async import names_of_stub

_NAMES = names_of_stub(__file__)
__all__ = sorted(_NAMES)  # noqa: PLE0605 - type checkers read the stub's


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _NAMES[name]
    if "pytest" in sys.modules and module not in sys.modules:
        # So that a failed assertion in here shows its values, as in a test file.
        sys.modules["pytest"].register_assert_rewrite(module)
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
