"""Compiles what is compiled; where there is no C compiler, the package is built without it and reads pages slower."""

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
    """One file, of C, of which one binary serves Python 3.11 and all that follow."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the binary to a wheel, or lay it beside its source for an editable one."""
        source = Path(self.root) / _SOURCE
        if version == "editable":
            _compiled(source, source.with_name(_BINARY))
            return
        self._folder = tempfile.TemporaryDirectory()
        binary = Path(self._folder.name) / _BINARY
        if _compiled(source, binary):
            # That a binary runs on every Linux is not for us to say.
            platform = next(
                tag.platform for tag in sys_tags() if not tag.platform.startswith(("manylinux", "musllinux"))
            )
            build_data["force_include"][str(binary)] = f"neows_async/endpoints/browse/{_BINARY}"
            build_data["pure_python"] = False
            build_data["tag"] = f"cp311-abi3-{platform}"

    def finalize(self, *_: object) -> None:
        """Leave nothing behind."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def _compiled(source: Path, binary: Path) -> bool:
    linker, position = (sysconfig.get_config_var(name) for name in ("LDSHARED", "CCSHARED"))
    compiler, *flags = shlex.split(linker or "cc -shared")
    # Written aside: a program that runs may have the old one mapped.
    aside = binary.with_name(f"{binary.name}.{os.getpid()}")
    command = [
        *(*shlex.split(os.environ.get("CC") or compiler), *flags),
        *shlex.split(position or "-fPIC"),
        *("-O2", "-g0", "-std=c99", f"-I{sysconfig.get_path('include')}"),
        *(str(source), "-o", str(aside)),
    ]
    try:
        if sys.implementation.name != "cpython":
            raise OSError(f"{sys.implementation.name} does not load what is made for CPython")
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - the compiler
        aside.replace(binary)
    except (OSError, subprocess.CalledProcessError) as exc:
        why = exc.stderr if isinstance(exc, subprocess.CalledProcessError) else exc
        sys.stderr.write(f"Pages will be read by Python alone, which is slower: {shlex.join(command)}\n{why}\n")
        for left in (aside, binary):
            left.unlink(missing_ok=True)
        return False
    return True
