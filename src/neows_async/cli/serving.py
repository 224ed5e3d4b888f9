"""``sandbox``: an imitation of NeoWs on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def serve_command(*, port: int, neos: int, seed: int, pages: Path | None, scenario: Path | None) -> None:
    """Serve until interrupted."""
