"""The program ``neows-async``: finds the command, runs it, and turns every ending into an exit code.

A command's module is imported only when that command is called, so that ``--help`` and ``--version`` answer at once,
and each module can import what it needs at its top. A command and its module have the same name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

import click
from typing_extensions import override

from neows_async._version import __version__
from neows_async.cli import output
from neows_async.cli.exit_codes import ExitCode, exit_code_of

if TYPE_CHECKING:
    from collections.abc import Sequence

# The summaries are the first lines of the commands' docstrings; to read those, the modules would have to be imported.
_SUMMARIES: Final = {
    "run": "Fetch near-Earth objects, store them as Parquet, count their close approaches.",
    "plan": "Show what a run would cost, when it would end, and the best minute to start.",
    "path": "Print the folder of a DATASET: neos, close_approaches, aggregates or quarantine.",
    "snapshots": "List all snapshots, newest first: committed, unfinished, and left by dead runs.",
    "verify": "Check a SNAPSHOT (default: the latest) against its receipt.",
    "quarantine": "List, show and replay the objects that could not be parsed.",
    "prune": "Remove all but the newest N snapshots, and what dead runs left.",
    "sandbox": "Serve an imitation of NeoWs and its gateway on this machine.",
}


class _LazyGroup(click.Group):
    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_SUMMARIES)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _SUMMARIES:
            return None
        command: click.Command = getattr(import_module(f"neows_async.cli.{cmd_name}"), cmd_name)
        return command

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Run 'neows-async COMMAND --help' for a command's options and examples.",
)
@click.version_option(__version__, prog_name=output.PROGRAM)
def neows_async() -> None:
    """Copy NASA's near-Earth-object catalogue into a Parquet data lake, exactly and politely."""


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code. An error is one line on stderr."""
    try:
        code = neows_async.main(args=list(arguments), prog_name=output.PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message())
        return ExitCode.USAGE
    except click.ClickException as exc:
        command = exc.ctx.command_path if isinstance(exc, click.UsageError) and exc.ctx else output.PROGRAM
        return output.error(f"{exc.format_message()} See '{command} --help'.", ExitCode.USAGE)
    # Signals during a run are handled in cli/ingest.py; these are the others.
    except (KeyboardInterrupt, click.Abort):
        return output.error("interrupted", ExitCode.INTERRUPTED)
    except Exception as exc:  # noqa: BLE001 - outside a command: while options are read and modules are imported
        return output.error(output.message_of(exc), exit_code_of(exc))
    return code if isinstance(code, int) else ExitCode.DONE
