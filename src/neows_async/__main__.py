"""``python -m neows_async``, the same as the console script ``neows-async``."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress

_GRACE_S = 0.2
"""How long the exit waits for threads: a storage call that was abandoned may hang for minutes."""


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        # The order matters: the allocators are tuned before Arrow is imported, and pydantic's plugins are switched off
        # before pydantic is imported, which would search all installed packages for them.
        from neows_async._process import tune_allocators  # noqa: PLC0415 - importing this file does nothing

        tune_allocators()
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
        from neows_async.cli.app import run_command_line  # noqa: PLC0415 - as above

        code = run_command_line(sys.argv[1:])
    except KeyboardInterrupt:  # while our own modules are imported; the command line handles all later ones
        code = 130  # ExitCode.INTERRUPTED, whose module may not be imported yet
    _leave(code)


def _leave(code: int) -> None:
    """Exit without waiting for a thread that hangs in an abandoned storage call, as the interpreter would."""
    until_s = time.monotonic() + _GRACE_S
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    for thread in others:
        if not thread.daemon:
            thread.join(max(0.0, until_s - time.monotonic()))
    # The interpreter would join such a thread for as long as its storage call hangs.
    if any(thread.is_alive() and not thread.daemon for thread in others):
        # os._exit flushes nothing.
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
