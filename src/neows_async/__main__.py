"""``python -m neows_async``, the same as the console script ``neows-async``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from neows_async.cli.app import run_command_line  # noqa: PLC0415 - importing this file must do nothing

        code = run_command_line(sys.argv[1:])
    except KeyboardInterrupt:  # while our own modules were loading
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
