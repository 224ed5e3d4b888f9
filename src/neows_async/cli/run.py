"""``run``: options become settings and the names of parts; :mod:`neows_async.cli.ingest` does the rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import click
from click.core import ParameterSource

from neows_async.cli import output
from neows_async.cli.config import DEMO_KEY_HINT, KEY_VARIABLE, api_key, defaults_of, settings_of
from neows_async.cli.exit_codes import MEANINGS
from neows_async.cli.options import REDACT, Command, log_format_option, number_option, option, quiet_option, setting
from neows_async.errors import KeyRefusedError, NotFoundError, SettingsError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.raw_zone import RawLocation, find_raw
from neows_async.lake.storage import open_storage
from neows_async.outputs import registry
from neows_async.pages.redact import Redactor
from neows_async.settings import SNAPSHOT_ID, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_WORKERS: Final = 2  # the main process cannot keep more of them busy
_ARCHIVE_CONCURRENCY: Final = 8  # no server to spare; fewer leave processors idle, or wait for S3
_SANDBOX_ROOT: Final = "data/sandbox/"
# With one of these, a missing key is an error, and does not fall back to the sandbox.
_NOT_BARE: Final = ("root", "base_url", "snapshot")
# Who wins over whom, for --all and --limit.
_PRECEDENCE: Final = [
    ParameterSource.COMMANDLINE,
    ParameterSource.ENVIRONMENT,
    ParameterSource.DEFAULT_MAP,
    ParameterSource.DEFAULT,
]


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Put ``.env`` and the TOML file behind arguments and environment, before click reads the other options."""
    # Shell completion must not read files.
    if ctx.resilient_parsing:
        return
    # One file serves run and plan: plan skips what only run has.
    values, variables = defaults_of(run, path)
    if ctx.command is not run:
        names = {parameter.name for parameter in ctx.command.params}
        own = defaults_of(ctx.command, None)[0]
        values = own | {name: value for name, value in values.items() if name in names}
    # Behind arguments and environment: click looks here last.
    ctx.default_map = values
    ctx.meta["variables"] = variables
    ctx.meta["config"] = path


SECTIONS: Final = {
    "What to fetch": [
        setting("limit"),
        option("--all", "all_", is_flag=True, help="Fetch the whole catalogue."),
        option(
            "--source",
            metavar="NAME",
            default="auto",
            show_default=True,
            help="auto, nasa, archive, sandbox, or module:attribute. auto is NASA if there is a key. Without a key, a "
            "bare run uses the sandbox.",
        ),
        option(
            "--from-snapshot", metavar="ID", help="The snapshot whose raw pages --source archive reads, e.g. 'latest'."
        ),
        *map(setting, ("base_url", "page_size", "max_generations", "max_missing_pages")),
    ],
    "Where to store": [*map(setting, ("root", "snapshot", "fresh", "resume_within_s", "archive"))],
    "Quota and waiting": [
        *map(setting, ("concurrency", "max_rate_per_s", "budget_requests", "max_wait_s", "max_outage_s")),
        *map(setting, ("probe_every_s", "retry_budget_s")),
        option(
            "--no-shared-quota",
            is_flag=True,
            help="Do not share the quota with your other runs on this machine that use the same key.",
        ),
    ],
    "Outputs": [
        *map(setting, ("partition_by", "within_au", "orbiting_body", "max_rejects")),
        option(
            "--sink",
            multiple=True,
            metavar="NAME",
            default=registry.defaults(registry.SINKS),
            show_default=True,
            help=f"Write objects with {registry.listing(registry.SINKS)}, or module:attribute. Can be repeated.",
        ),
        option(
            "--aggregator",
            multiple=True,
            metavar="NAME",
            default=registry.defaults(registry.AGGREGATORS),
            show_default=True,
            help=f"Compute {registry.listing(registry.AGGREGATORS)}, or module:attribute. Can be repeated.",
        ),
        option(
            "--aggregate-writer",
            metavar="NAME",
            default=registry.defaults(registry.AGGREGATE_WRITERS)[0],
            show_default=True,
            help=f"Write aggregates as {registry.listing(registry.AGGREGATE_WRITERS)}, or by module:attribute.",
        ),
    ],
    "Technical": [
        *map(setting, ("request_timeout_s", "max_body_bytes", "workers")),
        number_option("--sandbox-neos", "The built-in sandbox has N objects.", least=0, default=41_282),
        number_option(
            "--sandbox-seed", "The seed of the sandbox's objects. Equal seeds give equal objects.", default=1
        ),
        quiet_option(),
        log_format_option("json: events as lines on stderr, the receipt on stdout."),
        option(
            "--config",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            is_eager=True,
            callback=_read_config,
            expose_value=False,
            help="Read settings from a TOML file, named as the options: max_rate = 2.",
        ),
    ],
}
_EXIT_CODES: Final = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())


@click.command(
    cls=Command,
    sections=SECTIONS,
    epilog=f"""Examples:
  neows-async run                                        the first 200, from the built-in sandbox
  {KEY_VARIABLE}=DEMO_KEY neows-async run                  the first 200, from NASA
  neows-async run --all --root s3://bucket/neows         the whole catalogue, with your key in .env
  neows-async run --partition-by close_approaches:orbiting_body
  neows-async run --source archive --from-snapshot latest --within-au 0.05
                                                         rebuild from the raw pages, without a request

The key is {KEY_VARIABLE} (environment, .env, or nasa_api_key in the file), never an argument.
Arguments override the environment, the environment overrides .env, and .env overrides the file.

Exit codes:
{_EXIT_CODES}""",
)
@click.pass_context
def run(ctx: click.Context, /, **options: Any) -> None:
    """Fetch near-Earth objects, store them as Parquet, count their close approaches.

    Run the same command again after a crash or a pause: it resumes, and fetches only the missing pages.
    """
    # Arrow is imported here: 0.2 s that `run --help` does without.
    from neows_async.cli.ingest import run_ingest  # noqa: PLC0415 - as said
    from neows_async.cli.parts import PartNames  # noqa: PLC0415 - as above

    quiet, as_json = options["quiet"], options["log_format"] == "json"
    given = given_options(ctx, options)
    # Before anything that may fail: from here on errors are redacted.
    key = read_key(ctx)
    source = _choose_source(options, given, key, has_config=ctx.meta["config"] is not None)
    if options["from_snapshot"] is not None and source != "archive":
        raise SettingsError("--from-snapshot needs --source archive")
    # All settings are validated before the lake or the network is touched.
    settings = settings_of(values_of(ctx, options, given, key, source))
    raw = anyio.run(_find_raw, settings, options["from_snapshot"]) if source == "archive" else None
    if raw is not None:
        settings = _fitting_archive(settings, raw, given)
    names = PartNames(
        source=source,
        raw=raw,
        sinks=options["sink"],
        aggregators=options["aggregator"],
        aggregate_writer=options["aggregate_writer"],
        sandbox_neos=options["sandbox_neos"],
        sandbox_seed=options["sandbox_seed"],
        share_quota=not options["no_shared_quota"],
    )
    if not quiet:
        if source == "sandbox" and options["source"] == "auto":
            output.notice(
                f"No {KEY_VARIABLE} is set: using the built-in sandbox. Its objects are SYNTHETIC, and are stored in "
                f"{settings.root}. For NASA's objects, set {DEMO_KEY_HINT}, or a key of your own.",
                as_json=as_json,
            )
        if not settings.archive:
            output.notice("--no-archive: if this run dies, it cannot be resumed", as_json=as_json)
    ctx.exit(run_ingest(settings, names, quiet=quiet, as_json=as_json))


# -- shared with plan ---------------------------------------------------------------------------


def given_options(ctx: click.Context, options: Mapping[str, Any]) -> set[str]:
    """The parameters that were given: as an argument, a variable, in ``.env`` or in the file."""
    return {name for name in options if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}


def read_key(ctx: click.Context) -> str | None:
    """The key, if there is one. From now on, no error message shows it."""
    key = api_key(ctx.meta["variables"])
    ctx.meta[REDACT] = Redactor(key or "").text
    return key


def values_of(
    ctx: click.Context, options: Mapping[str, Any], given: set[str], key: str | None, source: str
) -> dict[str, Any]:
    """The given options, by field, for :func:`~neows_async.cli.config.settings_of`."""
    values = {name: options[name] for name in given if name in Settings.model_fields}
    if "no_archive" in given:
        values["archive"] = not options["no_archive"]
    if options["all_"]:
        ranks = [_PRECEDENCE.index(found) for name in ("all_", "limit") if (found := ctx.get_parameter_source(name))]
        # The stronger place wins; in the same place neither can.
        if ranks[0] == ranks[1]:
            raise SettingsError("--all and --limit contradict each other; give one of them")
        if ranks[0] < ranks[1]:
            values["limit"] = None
    values.setdefault("workers", min(_MAX_WORKERS, _processors() - 1))
    if source == "sandbox":
        values.setdefault("root", _SANDBOX_ROOT)
    elif key is not None:
        values["api_key"] = key
    return values


def _processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# -- the source ---------------------------------------------------------------------------------


def _choose_source(options: Mapping[str, Any], given: set[str], key: str | None, *, has_config: bool) -> str:
    source: str = options["source"]
    if source == "auto" and options["from_snapshot"] is not None:
        return "archive"
    if source not in ("auto", "nasa"):
        return source
    if key is not None:
        return "nasa"
    why = [_flag(name) for name in _NOT_BARE if name in given] + (["--config"] if has_config else [])
    # Only a bare run: a user who named a lake or a snapshot must not get synthetic objects in it.
    if source == "auto" and not why:
        return "sandbox"
    reason = "--source nasa" if source == "nasa" else f"a run with {why[0]}"
    raise KeyRefusedError(f"{reason} needs a key: set {DEMO_KEY_HINT}, or use --source sandbox for synthetic objects")


def _flag(field: str) -> str:
    described = Settings.option(field)
    return described.flag if described else field


async def _find_raw(settings: Settings, snapshot: str | None) -> RawLocation:
    if snapshot is None:
        raise SettingsError("--source archive needs --from-snapshot ID, the snapshot whose raw pages to read")
    if snapshot != "latest" and not SNAPSHOT_ID.fullmatch(snapshot):
        raise SettingsError(f"--from-snapshot: {snapshot!r} is not a snapshot id; 'neows-async snapshots' lists them")
    lake = AsyncStorage(open_storage(settings.root), timeout_s=settings.storage_timeout_s)
    try:
        return await find_raw(lake, snapshot, max_body_bytes=settings.max_body_bytes)
    except NotFoundError as exc:
        raise SettingsError(f"--from-snapshot: {exc}") from exc


def _fitting_archive(settings: Settings, raw: RawLocation, given: set[str]) -> Settings:
    """By default, a rebuild has the limit of its archive, and accepts the pages that the archive does not have."""
    update: dict[str, Any] = {}
    if not {"limit", "all_"} & given:
        update["limit"] = raw.limit
    if "concurrency" not in given:
        update["concurrency"] = _ARCHIVE_CONCURRENCY
    if "max_missing_pages" not in given:
        update["max_missing_pages"] = None
    return settings.model_copy(update=update)
