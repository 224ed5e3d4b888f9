"""``plan``: what a run would cost, when it would end, and the best minute to start it."""

from __future__ import annotations

import json
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from neows_async.cli import output
from neows_async.cli.options import Command, option

if TYPE_CHECKING:
    from neows_async.api.plan import PlanFacts
    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.settings import Settings

# What decides how a run goes; the others decide what it writes.
_AS_IN_RUN: Final = (
    *("limit", "all_", "root", "base_url", "page_size", "concurrency", "max_rate", "max_wait", "budget"),
    *("request_timeout", "max_body_bytes"),
    *("snapshot", "fresh", "resume_within", "no_archive", "no_shared_quota", "config"),
)


def command(run: click.Command) -> click.Command:
    """The command, whose options are those of ``run`` as far as they say how it goes."""
    shared = [parameter for parameter in run.params if parameter.name in _AS_IN_RUN]

    @click.command(
        "plan",
        cls=Command,
        epilog="""Examples:
  neows-async plan --all                         the whole catalogue, with the key that a run would use
  neows-async plan --all --no-request            from the last receipt and the shared quota, without asking
  neows-async plan --all --max-wait 10m          where it would pause
  neows-async plan --all --json | jq -r .best.start

Give it the options of the run that you mean. Times are UTC. Nothing is written to the lake. Exit codes: 0 with a
plan; otherwise those of run: 75 when the quota lets no request out and there is no receipt to plan from.""",
    )
    @option("--no-request", is_flag=True, help="Ask nobody: plan from the last receipt and the shared quota.")
    @option("--json", "json", is_flag=True, help="One JSON value on stdout, errors as JSON lines on stderr.")
    @click.pass_context
    def plan(ctx: click.Context, /, **options: Any) -> None:
        """Tell what a run would cost, when it would end, and the best minute to start it.

        Asks for one page, which counts in the quota, and writes nothing.
        """
        ctx.exit(_plan(ctx, options))

    plan.params[:0] = shared
    return plan


def _plan(ctx: click.Context, options: dict[str, Any]) -> int:
    from neows_async.cli.output import run_on_lake  # noqa: PLC0415 - heavy, and --help does without
    from neows_async.pages.redact import Redactor  # noqa: PLC0415 - as above

    as_json, scrub = options["json"], Redactor("")
    try:
        settings = _settings(ctx, options)
        scrub = Redactor(settings.api_key.get_secret_value() if settings.api_key else "")
        share_quota, may_ask = not options["no_shared_quota"], not options["no_request"]
        known = run_on_lake(
            lambda lake: _inquire(lake, settings, may_ask=may_ask, share_quota=share_quota, as_json=as_json),
            settings.root,
        )
        tell(known, as_json=as_json)
    except Exception as exc:  # noqa: BLE001 - whatever it is, its text must not show the key
        return output.fail(scrub.text(output.told(exc)), output.code_of(exc), as_json=as_json)
    return output.DONE


def _settings(ctx: click.Context, options: dict[str, Any]) -> Settings:
    """What the run would be given.

    :raises KeyRefusedError: it takes a key to ask, and there is none
    """
    from neows_async.cli.config import KEY_VARIABLE, api_key, settings_of  # noqa: PLC0415 - heavy
    from neows_async.cli.run import values_of  # noqa: PLC0415 - as above
    from neows_async.errors import KeyRefusedError  # noqa: PLC0415 - as above

    given = {name for name in options if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}
    key = api_key(ctx.meta["variables"])
    if key is None and not options["no_request"]:
        raise KeyRefusedError(
            f"a plan asks for one page, which needs a key: set {KEY_VARIABLE}, e.g. {KEY_VARIABLE}=DEMO_KEY, or plan "
            "from the last receipt with --no-request"
        )
    return settings_of(values_of(ctx, options, given, key, "nasa"))


async def _inquire(
    lake: AsyncStorage, settings: Settings, *, may_ask: bool, share_quota: bool, as_json: bool
) -> PlanFacts:
    from neows_async.api import plan  # noqa: PLC0415 - heavy, and --help does without
    from neows_async.cli import parts  # noqa: PLC0415 - as above
    from neows_async.cli.progress_view import told  # noqa: PLC0415 - as above
    from neows_async.lake.storage import open_storage  # noqa: PLC0415 - as above
    from neows_async.sources.nasa import origin_of  # noqa: PLC0415 - as above

    chosen = parts.Chosen(
        source="nasa", raw=None, sinks=(), aggregators=(), aggregate_writer="", sandbox_neos=0, sandbox_seed=0,
        share_quota=share_quota and settings.api_key is not None,
    )  # fmt: skip

    def listen(event: Any) -> None:
        if (line := told(event)) is not None:
            output.notice(line, as_json=as_json)

    origin = origin_of(settings.base_url)
    async with AsyncExitStack() as stack:
        return await plan.gather_facts(
            settings,
            lake,
            origin=origin,
            source=await parts.open_source(settings, chosen, open_storage(settings.root), stack) if may_ask else None,
            rules=parts.pacing_rules(settings, chosen),
            ledger=await parts.open_ledger(settings, chosen, stack),
            clock=time.time,
            listener=listen,
        )


def tell(known: PlanFacts, *, as_json: bool) -> None:
    """Print the plan."""
    from neows_async.cli import plan_view  # noqa: PLC0415 - with its heavy imports
    from neows_async.pacing.simulation import compare_starts, simulate  # noqa: PLC0415 - as above

    prospect = compare_starts(known.terms, known.at_s)
    hopeful = simulate(known.hopeful, known.at_s)
    with output.answering():
        if as_json:
            click.echo(json.dumps(plan_view.as_json(known, prospect, hopeful)))
            return
        fine = "utf" in (getattr(sys.stdout, "encoding", None) or "").lower()
        for line in plan_view.lines(known, prospect, hopeful, fine=fine):
            click.echo(output.clean(line))
