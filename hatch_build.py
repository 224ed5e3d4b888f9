"""Compile the page scanner. Without a C compiler, the package is built without it, and decodes pages slower."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags

_SOURCE = Path("src/neows_async/endpoints/browse/_approach_scan.c")
_BINARY = "_approach_scan.abi3.so"


class CustomBuildHook(BuildHookInterface[Any]):
    """Compiles one C file. Its binary works with Python 3.11 and all later versions (stable ABI)."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the binary to the wheel; for an editable install, write it beside its source."""
        source = Path(self.root) / _SOURCE
        if version == "editable":
            _compile(source, source.with_name(_BINARY))
            return
        self._folder = tempfile.TemporaryDirectory()
        binary = Path(self._folder.name) / _BINARY
        if _compile(source, binary):
            # Not "manylinux": nobody checked that this binary runs on every Linux.
            platform = next(
                tag.platform for tag in sys_tags() if not tag.platform.startswith(("manylinux", "musllinux"))
            )
            build_data["force_include"][str(binary)] = f"neows_async/endpoints/browse/{_BINARY}"
            build_data["pure_python"] = False
            build_data["tag"] = f"cp311-abi3-{platform}"

    def finalize(self, *_: object) -> None:
        """Remove the temporary folder."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def _compile(source: Path, binary: Path) -> bool:
    linker, position = (sysconfig.get_config_var(name) for name in ("LDSHARED", "CCSHARED"))
    compiler, *flags = shlex.split(linker or "cc -shared")
    # Written aside, then renamed: a running program may have the old binary mapped.
    aside = binary.with_name(f"{binary.name}.{os.getpid()}")
    command = [
        *(*shlex.split(os.environ.get("CC") or compiler), *flags),
        *shlex.split(position or "-fPIC"),
        *("-O2", "-g0", "-std=c99", f"-I{sysconfig.get_path('include')}"),
        *(str(source), "-o", str(aside)),
    ]
    try:
        if sys.implementation.name != "cpython":
            raise OSError(f"{sys.implementation.name} cannot load a binary for CPython")
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - the compiler
        aside.replace(binary)
    except (OSError, subprocess.CalledProcessError) as exc:
        reason = exc.stderr if isinstance(exc, subprocess.CalledProcessError) else exc
        sys.stderr.write(
            f"No page scanner was compiled, so decoding pages takes longer: {shlex.join(command)}\n{reason}\n"
        )
        for leftover in (aside, binary):
            leftover.unlink(missing_ok=True)
        return False
    return True
