"""Where the program keeps what outlives a run but belongs to no lake."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def ledger_path() -> Path | None:
    """The ledger of this user's quotas on this machine; None if there is no place for one."""
    home = os.environ.get("XDG_STATE_HOME", "")
    if Path(home).is_absolute():
        folder = Path(home)
    else:
        try:
            home_folder = Path.home()
        except RuntimeError:  # nobody's
            return None
        folder = home_folder / ("Library/Application Support" if sys.platform == "darwin" else ".local/state")
    return folder / "neows-async" / "quota.sqlite3"
