"""The commands. Each is thin: gather settings, call the library, show, exit with a code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from neows_async._version import __version__
from neows_async.cli import output, plan
from neows_async.cli.options import Command, Duration, option, root_option
from neows_async.cli.prune import prune
from neows_async.cli.quarantine import quarantine
from neows_async.cli.snapshots import snapshots
from neows_async.cli.verify import verify
from neows_async.outputs import registry

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM: Final = "neows-async"
_CODES = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in output.MEANINGS.items())


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Run 'neows-async COMMAND --help' for a command's options and examples.",
)
@click.version_option(__version__, prog_name=PROGRAM)
def neows_async() -> None:
    """Move NASA's near-Earth-object catalogue into a Parquet data lake, exactly and politely."""


@neows_async.command(
    cls=Command,
    epilog=f"""Examples:
  neows-async run                                        the first 200, from the built-in sandbox
  NASA_API_KEY=DEMO_KEY neows-async run                  the first 200, from NASA
  neows-async run --all --root s3://bucket/neows         the whole catalogue, with your key in .env
  neows-async run --partition-by close_approaches:orbiting_body
  neows-async run --source archive --from-snapshot latest --within-au 0.05
                                                         again from the kept pages, without a request

The key is NASA_API_KEY (environment, .env or nasa_api_key in the file), never an argument.
Arguments come before the environment, that before .env, that before the file.

Exit codes:
{_CODES}""",
)
@option("--limit", type=int, metavar="N", default=200, show_default=True, help="The first N objects of the catalogue.")
@option("--all", "all_", is_flag=True, help="The whole catalogue.")
@option(
    "--root", metavar="URI", help="The lake: a folder, or s3://bucket/prefix.  [default: data/, sandbox: data/sandbox/]"
)
@option(
    "--source",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="auto, nasa, archive, sandbox, or module:attribute; auto is NASA with a key, the sandbox for a bare run "
    "without one.",
)
@option("--from-snapshot", metavar="ID", help="Whose raw pages --source archive reads; 'latest' is one.")
@option("--base-url", metavar="URL", default="https://api.nasa.gov", show_default=True, help="Where NeoWs is.")
@option("--page-size", type=int, metavar="N", default=20, show_default=True, help="Objects a page to ask for.")
@option(
    "--concurrency",
    type=int,
    metavar="N",
    default=4,
    help="Requests under way at once, at most.  [default: 4; archive: 8]",
)
@option("--max-rate", type=float, metavar="R", help="Requests a second, at most.  [default: what the gateway allows]")
@option(
    "--retry-budget",
    type=Duration(),
    metavar="TIME",
    default="30s",
    show_default=True,
    help="For so long new attempts at one page begin, in a row.",
)
@option(
    "--request-timeout",
    type=Duration(),
    metavar="TIME",
    default="60s",
    show_default=True,
    help="How long one request may take, all in.",
)
@option(
    "--max-body-bytes",
    type=int,
    metavar="N",
    default=64 << 20,
    show_default=True,
    help="A larger answer, as sent or decoded, is no page.",
)
@option(
    "--max-wait",
    type=Duration(),
    metavar="TIME",
    help="A longer wait for the quota pauses the run.  [default: no limit]",
)
@option("--max-outage", type=Duration(), metavar="TIME", help="A longer outage ends the run.  [default: no limit]")
@option(
    "--probe-every",
    type=Duration(),
    metavar="TIME",
    default="5m",
    show_default=True,
    help="During an outage, one request in so long.",
)
@option("--budget", type=int, metavar="N", help="Spend at most N requests, then pause.  [default: no limit]")
@option(
    "--max-generations",
    type=int,
    metavar="N",
    default=2,
    show_default=True,
    help="Read a whole catalogue that was seen to change its size so often, at most.",
)
@option(
    "--max-missing-pages",
    type=int,
    metavar="N",
    default=0,
    show_default=True,
    help="Commit with so many pages missing, recorded as holes.",
)
@option(
    "--snapshot", metavar="ID", help="The snapshot's id, e.g. a scheduler's logical date.  [default: the UTC start]"
)
@option("--fresh", is_flag=True, help="Begin a new snapshot, even if an unfinished one could be resumed.")
@option(
    "--resume-within",
    type=Duration(),
    metavar="TIME",
    default="24h",
    show_default=True,
    help="Older unfinished snapshots are named, not resumed.",
)
@option(
    "--workers",
    type=int,
    metavar="N",
    help="Processes that help decoding when pages have to wait for it, at most.  [default: one fewer than the "
    "processors, 2 at most]",
)
@option(
    "--partition-by",
    multiple=True,
    metavar="DATASET:COLUMN",
    help="Lay a dataset out by a column; can be given once a dataset.",
)
@option(
    "--within-au",
    type=float,
    metavar="X",
    default=0.2,
    show_default=True,
    help="Count close approaches strictly closer than X au.",
)
@option(
    "--orbiting-body",
    metavar="NAME",
    help="Closest approach and aggregates over this body alone, e.g. Earth.  [default: any]",
)
@option(
    "--max-rejects",
    type=int,
    metavar="N",
    default=20,
    show_default=True,
    help="More unreadable objects than this end the run.",
)
@option("--no-archive", is_flag=True, help="Keep no raw pages; the run can then not be resumed or rebuilt.")
@option(
    "--no-shared-quota",
    is_flag=True,
    help="Do not keep together with other runs of yours on this machine that use the same key.",
)
@option(
    "--sink",
    multiple=True,
    metavar="NAME",
    default=registry.defaults(registry.SINKS),
    show_default=True,
    help=f"Where objects go: {registry.listing(registry.SINKS)}, or module:attribute. Can be repeated.",
)
@option(
    "--aggregator",
    multiple=True,
    metavar="NAME",
    default=registry.defaults(registry.AGGREGATORS),
    show_default=True,
    help=f"What is computed: {registry.listing(registry.AGGREGATORS)}, or module:attribute. Can be repeated.",
)
@option(
    "--aggregate-writer",
    metavar="NAME",
    default=registry.defaults(registry.AGGREGATE_WRITERS)[0],
    show_default=True,
    help=f"How aggregates are written: {registry.listing(registry.AGGREGATE_WRITERS)}, or module:attribute.",
)
@option(
    "--sandbox-neos",
    type=click.IntRange(min=0),
    metavar="N",
    default=41_282,
    show_default=True,
    help="How many objects the embedded sandbox has.",
)
@option("--sandbox-seed", type=int, metavar="N", default=1, show_default=True, help="What they are made from.")
@option("--quiet", is_flag=True, help="Print nothing but errors.")
@option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: events as lines on stderr, the receipt on stdout.",
)
@option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    is_eager=True,
    callback=lambda ctx, _, path: _take_defaults(ctx, path),
    expose_value=False,
    help="Settings from a TOML file, named as the options: max_rate = 2.",
)
@click.pass_context
def run(ctx: click.Context, /, **options: Any) -> None:
    """Fetch objects, save them as Parquet, count their close approaches.

    The same command finishes what died: pages that are in are never asked for again.
    """
    from neows_async._process import tune_allocators  # noqa: PLC0415 - for those who need it

    tune_allocators()
    from neows_async.cli.run import run_command  # noqa: PLC0415 - heavy, and --help does without

    ctx.exit(run_command(ctx, options))


@neows_async.command(
    cls=Command,
    epilog="""Examples:
  neows-async path                       the folder of the latest snapshot's neos
  neows-async path close_approaches --root s3://bucket/neows
  duckdb -c "SELECT count(*) FROM read_parquet('$(neows-async path)/**/*.parquet')\"""",
)
@click.argument("dataset", default="neos")
@root_option()
@option("--snapshot", metavar="ID", default="latest", show_default=True, help="Which snapshot.")
def path(dataset: str, root: str, snapshot: str) -> None:
    """Print where a snapshot of a DATASET lies: neos, close_approaches, aggregates or quarantine."""
    from neows_async.cli.run import path_command  # noqa: PLC0415 - heavy, and --help does without

    lies = path_command(dataset, root, snapshot)
    with output.answering():
        click.echo(lies)


@neows_async.command(
    cls=Command,
    epilog="""Examples:
  neows-async sandbox --port 8080
  NASA_API_KEY=anything neows-async run --base-url http://127.0.0.1:8080 --root /tmp/lake""",
)
@option(
    "--port",
    type=click.IntRange(0, 65_535),
    metavar="N",
    default=8080,
    show_default=True,
    help="Where to listen, on 127.0.0.1; 0 chooses a free one.",
)
@option(
    "--neos",
    type=click.IntRange(min=0),
    metavar="N",
    default=41_282,
    show_default=True,
    help="How many synthetic objects the catalogue has.",
)
@option("--seed", type=int, metavar="N", default=1, show_default=True, help="What they are made from.")
@option(
    "--pages",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Serve the recorded pages of a folder instead: page_NNNNN.json, .json.gz or .json.zst.",
)
@option(
    "--hourly-limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Requests an hour that a key has; DEMO_KEY has 30.  [default: 1000]",
)
@option(
    "--scenario",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Bad days to imitate, as TOML: outages, slow and broken answers, a catalogue that changes.",
)
def sandbox(**options: Any) -> None:
    """Serve an imitation of NeoWs and its gateway on loopback, to try things without NASA."""
    from neows_async.cli.sandbox import serve_command  # noqa: PLC0415 - heavy, and --help does without

    serve_command(**options)


for _command in (plan.command(run), verify, snapshots, prune, quarantine):
    neows_async.add_command(_command)


def _take_defaults(ctx: click.Context, config: Path | None) -> None:
    """Put ``.env`` and the file behind arguments and environment, before click looks for them."""
    from neows_async.cli.config import defaults_of  # noqa: PLC0415 - --help does without

    if ctx.resilient_parsing:
        return
    # One file and one .env serve all who take run's options: what is run's alone is not theirs.
    values, ctx.meta["variables"] = defaults_of(run, config)
    if ctx.command is not run:
        names = {parameter.name for parameter in ctx.command.params}
        values = {name: value for name, value in values.items() if name in names}
        values |= {name: value for name, value in defaults_of(ctx.command, None)[0].items() if name not in values}
    ctx.default_map = values
    ctx.meta["config"] = config


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code. Errors are one line on stderr."""
    try:
        code = neows_async.main(args=list(arguments), prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message())
        return output.USAGE
    except click.ClickException as exc:
        command = exc.ctx.command_path if isinstance(exc, click.UsageError) and exc.ctx else PROGRAM
        return output.fail(f"{exc.format_message()} See '{command} --help'.", output.USAGE)
    except (KeyboardInterrupt, click.Abort):
        return output.fail("interrupted", output.INTERRUPTED)
    except Exception as exc:  # noqa: BLE001 - the one place where what nobody foresaw becomes a line and a code
        return output.fail(output.told(exc), output.code_of(exc))
    return code if isinstance(code, int) else output.DONE
