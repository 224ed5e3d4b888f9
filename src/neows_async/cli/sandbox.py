"""``sandbox``: an imitation of NeoWs on this machine."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click

from neows_async.cli.options import Command, number_option, option
from neows_async.sandbox.app import SandboxApp
from neows_async.sandbox.catalogue import RecordedPages, SyntheticCatalogue
from neows_async.sandbox.rate_limits import Gateway
from neows_async.sandbox.scenario import Scenario, read_scenario
from neows_async.sandbox.server import listen, serve, url_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence


@click.command(
    cls=Command,
    params=[
        number_option(
            "--port", "Listen on this port of 127.0.0.1. 0 chooses a free one.", least=0, most=65_535, default=8080
        ),
        number_option("--neos", "The catalogue has N synthetic objects.", least=0, default=41_282),
        number_option("--seed", "The seed of the objects. Equal seeds give equal objects.", default=1),
        option(
            "--pages",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help="Serve the recorded pages of a folder instead: page_NNNNN.json, .json.gz or .json.zst.",
        ),
        number_option("--hourly-limit", "Allow N requests an hour per key; DEMO_KEY has 30.  [default: 1000]", least=1),
        option(
            "--scenario",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Imitate the faults of a TOML file: outages, slow and broken responses, a catalogue that changes.",
        ),
    ],
    epilog="""Examples:
  neows-async sandbox --port 8080
  NASA_API_KEY=anything neows-async run --base-url http://127.0.0.1:8080 --root /tmp/lake""",
)
def sandbox(
    *, port: int, neos: int, seed: int, pages: Path | None, hourly_limit: int | None, scenario: Path | None
) -> None:
    """Serve an imitation of NeoWs and its gateway on this machine.

    Try things out without NASA. Serves until Ctrl-C.
    """
    catalogue = SyntheticCatalogue(neos, seed) if pages is None else RecordedPages(pages)
    played = Scenario() if scenario is None else read_scenario(scenario)
    app = SandboxApp(catalogue, gateway=Gateway(played.gateway, hourly_limit=hourly_limit), scenario=played)
    # Listens before the URL is printed, so that a script can use it at once.
    with listen(port) as listening:
        what = "synthetic objects" if pages is None else "recorded objects"
        lines = (
            f"Serving {catalogue.total:,} {what} at {url_of(listening)} (Ctrl-C to stop)",
            f"Try: NASA_API_KEY=anything neows-async run --base-url {url_of(listening)} --root /tmp/lake",
        )
        anyio.run(_serve_until_signal, app, listening, lines)


async def _serve_until_signal(app: SandboxApp, listening: socket.socket, lines: Sequence[str]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        # Announced when signals are received here: a reader of the lines may send one at once, and a signal that
        # interrupts an import could get lost.
        for line in lines:
            click.echo(line)
        async with anyio.create_task_group() as tasks:
            servers: list[Any] = []
            tasks.start_soon(serve, app, listening, servers.append)
            async for _ in signals:
                # The server finishes the responses in flight, then its task ends.
                for server in servers:
                    server.should_exit = True
                if not servers:  # the signal was faster than the start
                    tasks.cancel_scope.cancel()
                break
