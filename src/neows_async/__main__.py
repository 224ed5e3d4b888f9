"""``python -m neows_async``, the same as the console script ``neows-async``."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress

_GRACE_S = 0.2


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from neows_async._process import tune_gc  # noqa: PLC0415 - importing this file must do nothing

        tune_gc()
        # Pydantic would look into every package that is installed, for what changes how settings are read.
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
        from neows_async.cli.app import run_command_line  # noqa: PLC0415 - as above

        code = run_command_line(sys.argv[1:])
    except KeyboardInterrupt:  # while our own modules were loading
        code = 130
    _leave(code)


def _leave(code: int) -> None:
    """Exit. The interpreter would wait for every thread, also for one whose call of a storage was given up."""
    until_s = time.monotonic() + _GRACE_S
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    for thread in others:
        if not thread.daemon:
            thread.join(max(0.0, until_s - time.monotonic()))
    if any(thread.is_alive() and not thread.daemon for thread in others):
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
