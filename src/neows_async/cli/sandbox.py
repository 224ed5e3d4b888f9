"""``sandbox``: an imitation of NeoWs on loopback."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import anyio
import click

from neows_async.sandbox.app import SandboxApp
from neows_async.sandbox.catalogue import RecordedPages, SyntheticCatalogue
from neows_async.sandbox.rate_limits import Gateway
from neows_async.sandbox.scenario import Scenario, read_scenario
from neows_async.sandbox.server import listen, serve, url_of

if TYPE_CHECKING:
    import socket
    from pathlib import Path


def serve_command(
    *, port: int, neos: int, seed: int, pages: Path | None, hourly_limit: int | None, scenario: Path | None
) -> None:
    """Serve until interrupted.

    :raises SettingsError: the port is taken, or the pages or the scenario cannot be read
    """
    catalogue = SyntheticCatalogue(neos, seed) if pages is None else RecordedPages(pages)
    played = Scenario() if scenario is None else read_scenario(scenario)
    gateway = Gateway(played.gateway, hourly_limit=hourly_limit)
    app = SandboxApp(catalogue, gateway=gateway, scenario=played)
    with listen(port) as listening:
        what = "synthetic objects" if pages is None else "recorded objects"
        click.echo(f"Serving {catalogue.total:,} {what} at {url_of(listening)} (Ctrl-C ends it)")
        click.echo(f"Try: NASA_API_KEY=anything neows-async run --base-url {url_of(listening)} --root /tmp/lake")
        anyio.run(_until_signalled, app, listening)


async def _until_signalled(app: SandboxApp, listening: socket.socket) -> None:
    async with anyio.create_task_group() as tasks:
        servers: list[Any] = []
        tasks.start_soon(serve, app, listening, servers.append)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                for server in servers:
                    server.should_exit = True
                return
