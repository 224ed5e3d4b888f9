"""``run``: from options to settings and parts, and from a receipt or an exception to what people see."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

import anyio
import click
from click.core import ParameterSource

from neows_async._process import freeze_gc, leave_pandas_out
from neows_async.cli import output
from neows_async.cli.config import KEY_VARIABLE, SETTING_OF, api_key, flag, settings_of
from neows_async.cli.parts import Chosen, all_ours, open_parts
from neows_async.cli.progress_view import listening
from neows_async.errors import KeyRefusedError, NeowsError, NotFoundError, SettingsError, most_relevant
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.lake import Lake
from neows_async.lake.layout import DATASETS, dataset_folder
from neows_async.lake.raw_zone import RawLocation, find_raw
from neows_async.lake.storage import location, open_storage
from neows_async.pages.redact import Redactor
from neows_async.pipeline.run import ingest
from neows_async.settings import SNAPSHOT_ID, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neows_async.lake.receipt import Receipt

_GRACE_S: Final = 1.5
_MOST_HELPERS: Final = 2  # more than that the one process that does the rest cannot keep busy
_ARCHIVE_CONCURRENCY: Final = 8  # nobody is asked too much: fewer leave processors idle, or wait for S3
_SAYING_S: Final = 0.2
_SANDBOX_ROOT: Final = "data/sandbox/"
_NOT_BARE: Final = ("root", "base_url", "snapshot")
# The later one in this list gives way to the earlier.
_RANK: Final = [
    ParameterSource.COMMANDLINE,
    ParameterSource.ENVIRONMENT,
    ParameterSource.DEFAULT_MAP,
    ParameterSource.DEFAULT,
]


def run_command(ctx: click.Context, options: dict[str, Any]) -> int:
    """The ``run`` command; returns the exit code."""
    as_json = options["log_format"] == "json"
    try:
        settings, chosen = _prepare(ctx, options, as_json=as_json)
    except NeowsError as exc:
        return output.fail(str(exc), output.code_of(exc), as_json=as_json)
    return carry_out(settings, chosen, quiet=options["quiet"], as_json=as_json)


def _prepare(ctx: click.Context, options: dict[str, Any], *, as_json: bool) -> tuple[Settings, Chosen]:
    """What the options mean."""
    given = {name for name in options if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}
    key = api_key(ctx.meta["variables"])
    source = _choose_source(options, given, key, has_config=ctx.meta["config"] is not None)
    settings = settings_of(values_of(ctx, options, given, key, source))
    raw = anyio.run(_find_raw, settings, options["from_snapshot"]) if source == "archive" else None
    if raw is not None:
        settings = _as_the_archive(settings, raw, given)
    if options["from_snapshot"] is not None and raw is None:
        raise SettingsError("--from-snapshot goes with --source archive")
    chosen = Chosen(
        source=source,
        raw=raw,
        sinks=options["sink"],
        aggregators=options["aggregator"],
        aggregate_writer=options["aggregate_writer"],
        sandbox_neos=options["sandbox_neos"],
        sandbox_seed=options["sandbox_seed"],
        share_quota=not options["no_shared_quota"],
    )
    if source == "sandbox" and options["source"] == "auto" and not options["quiet"]:
        output.notice(
            f"No {KEY_VARIABLE} is set: using the built-in sandbox. Its objects are SYNTHETIC, and go to "
            f"{settings.root}. For NASA's, set {KEY_VARIABLE}=DEMO_KEY (enough for 200) or a key of your own.",
            as_json=as_json,
        )
    if not settings.archive and not options["quiet"]:
        output.notice("--no-archive: if this run dies, it cannot be resumed; it begins anew", as_json=as_json)
    return settings, chosen


def _choose_source(options: Mapping[str, Any], given: set[str], key: str | None, *, has_config: bool) -> str:
    source: str = options["source"]
    if source == "auto" and options["from_snapshot"] is not None:
        return "archive"
    if source not in ("auto", "nasa"):
        return source
    if key is not None:
        return "nasa"
    why = [flag(name) for name in _NOT_BARE if name in given] + (["--config"] if has_config else [])
    if source == "auto" and not why:
        return "sandbox"
    reason = "--source nasa" if source == "nasa" else f"a run with {why[0]}"
    raise KeyRefusedError(
        f"{reason} needs a key: set {KEY_VARIABLE}, e.g. {KEY_VARIABLE}=DEMO_KEY (enough for 200), or use "
        "--source sandbox for synthetic objects"
    )


def values_of(
    ctx: click.Context, options: Mapping[str, Any], given: set[str], key: str | None, source: str
) -> dict[str, Any]:
    """By setting: what was given. For :func:`~neows_async.cli.config.settings_of`."""
    values = {
        SETTING_OF.get(name, name): options[name]
        for name in given
        if SETTING_OF.get(name, name) in Settings.model_fields
    }
    if "no_archive" in given:
        values["archive"] = not options["no_archive"]
    if options["all_"]:
        ranks = [_RANK.index(found) for name in ("all_", "limit") if (found := ctx.get_parameter_source(name))]
        if ranks[0] == ranks[1]:
            raise SettingsError("--all and --limit contradict each other; give one of them")
        if ranks[0] < ranks[1]:
            values["limit"] = None
    values.setdefault("workers", min(_MOST_HELPERS, _processors() - 1))
    if source == "sandbox":
        values.setdefault("root", _SANDBOX_ROOT)
    elif key is not None:
        values["api_key"] = key
    return values


def _processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


async def _find_raw(settings: Settings, snapshot: str | None) -> RawLocation:
    if snapshot is None:
        raise SettingsError("--source archive needs --from-snapshot ID: whose raw pages to read")
    _require_id("--from-snapshot", snapshot)
    lake = AsyncStorage(open_storage(settings.root), timeout_s=settings.storage_timeout_s)
    try:
        return await find_raw(lake, snapshot, max_body_bytes=settings.max_body_bytes)
    except NotFoundError as exc:
        raise SettingsError(f"--from-snapshot: {exc}") from exc


def _require_id(option: str, snapshot: str) -> None:
    if snapshot != "latest" and not SNAPSHOT_ID.fullmatch(snapshot):
        raise SettingsError(f"{option}: {snapshot!r} is no snapshot's id; 'latest' is one, see _runs/ for others")


def _as_the_archive(settings: Settings, raw: RawLocation, given: set[str]) -> Settings:
    """A rebuild covers what its archive was meant to hold, and says what it does not hold."""
    update: dict[str, Any] = {}
    if not {"limit", "all_"} & given:
        update["limit"] = raw.limit
    if "concurrency" not in given:
        update["concurrency"] = _ARCHIVE_CONCURRENCY
    if "max_missing_pages" not in given:
        update["max_missing_pages"] = None
    return settings.model_copy(update=update)


def carry_out(settings: Settings, chosen: Chosen, *, quiet: bool, as_json: bool) -> int:
    """One run, with signals, answers and errors; returns the exit code."""
    scrubber = Redactor(settings.api_key.get_secret_value() if settings.api_key else "")
    freeze_gc()
    if all_ours(chosen):
        leave_pandas_out()
    outcome = anyio.run(_main, settings, chosen, quiet, as_json)
    if isinstance(outcome, int):
        return _stopped(outcome, as_json=as_json)
    try:
        if isinstance(outcome, Exception):
            raise outcome
        _show(settings, outcome, quiet=quiet, as_json=as_json)
    except Exception as exc:  # noqa: BLE001 - whatever it is, its text must not show the key
        return output.fail(scrubber.text(output.told(exc)), output.code_of(exc), as_json=as_json)
    return output.DONE


async def _main(settings: Settings, chosen: Chosen, quiet: bool, as_json: bool) -> Receipt | Exception | int:  # noqa: FBT001 - anyio.run passes by position
    """The receipt, or what went wrong, or the signal that ended it."""
    outcome: Receipt | Exception | int | None = None
    async with anyio.create_task_group() as tasks:

        async def until_signalled() -> None:
            nonlocal outcome
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for number in signals:
                    outcome = int(number)
                    # A storage call that hangs must not hold the process: whatever is not done by
                    # then is found unfinished by the next run, as after any other death.
                    _exit_soon(number, as_json=as_json)
                    tasks.cancel_scope.cancel()
                    return

        tasks.start_soon(until_signalled)
        try:
            with listening(quiet=quiet, as_json=as_json) as listener:
                async with open_parts(settings, chosen) as parts:
                    outcome = await ingest(settings, parts, listener)
        except Exception as exc:  # noqa: BLE001 - to be told as it is, not as the group around us would wrap it
            # A part that runs tasks of its own may wrap what passes through it.
            the_one = most_relevant(exc) if isinstance(exc, ExceptionGroup) else exc
            outcome = the_one if isinstance(the_one, Exception) else exc
        tasks.cancel_scope.cancel()
    if outcome is None:
        raise RuntimeError("cancelled without a signal")
    return outcome


def _stopped(number: int, *, as_json: bool) -> int:
    stopped = f"{signal.Signals(number).name}: stopped; run the same command again to go on"
    return output.fail(stopped, 128 + number, as_json=as_json)


def _exit_soon(number: int, *, as_json: bool) -> None:
    def exit_now() -> None:
        os._exit(128 + number)

    def say_so_and_exit() -> None:
        _stopped(number, as_json=as_json)
        exit_now()

    # The second is for when nobody takes what the first says.
    for after_s, what in ((_GRACE_S, say_so_and_exit), (_GRACE_S + _SAYING_S, exit_now)):
        timer = threading.Timer(after_s, what)
        timer.daemon = True
        timer.start()


def _show(settings: Settings, receipt: Receipt, *, quiet: bool, as_json: bool) -> None:
    if quiet:
        return
    with output.answering():
        if as_json:
            click.echo(json.dumps(receipt.model_dump(mode="json")))
            return
        from neows_async.cli.summary import show  # noqa: PLC0415 - rich is for those who look

        storage = open_storage(settings.root)
        show(receipt, root=settings.root, limit=settings.limit, open_input=storage.open_input)


def path_command(dataset: str, root: str, snapshot: str) -> str:
    """Where ``dataset`` of ``snapshot`` lies.

    :raises SettingsError: there is no such dataset or snapshot
    """
    if dataset not in DATASETS:
        raise SettingsError(f"there is no dataset {dataset!r}; there are {', '.join(DATASETS)}")
    _require_id("--snapshot", snapshot)
    try:
        receipt = Lake(open_storage(root)).receipt(snapshot)
    except NotFoundError as exc:
        raise SettingsError(f"{exc}; 'neows-async run' makes one") from exc
    return f"{location(root)}/{dataset_folder(dataset, receipt.snapshot)}"
