"""The one place where the version stands; the package's metadata repeat it."""

from __future__ import annotations

__version__ = "0.1.0"
"""By https://semver.org."""
