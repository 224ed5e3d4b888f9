"""Near-Earth objects from NASA's NeoWs into a Parquet data lake.

Importing this package costs next to nothing and does nothing: each public name loads its module when it is first used.
``__init__.pyi`` lists the names.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any


def names_of_stub(file: str, loader: Any) -> dict[str, str]:
    """Each public name of the package whose ``__init__.py`` is ``file`` → the module that defines it.

    :param loader: what loaded the package: it may be in a zip file
    """
    stub = ast.parse(loader.get_data(str(Path(file).with_suffix(".pyi"))))
    imports = (node for node in stub.body if isinstance(node, ast.ImportFrom))
    return {alias.name: str(node.module) for node in imports for alias in node.names}


_NAMES = names_of_stub(__file__, __spec__.loader)
__all__ = sorted(_NAMES)  # noqa: PLE0605 - type checkers read the stub's


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("errors", "events"):
        return importlib.import_module(f"{_NAMES[name]}.{name}")
    value = getattr(importlib.import_module(_NAMES[name]), name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
