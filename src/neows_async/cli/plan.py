"""``plan``: what a run would cost, when it would end, and the best minute to start it."""

from __future__ import annotations

import json
import sys
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from neows_async.cli import output, plan_view
from neows_async.cli.config import DEMO_KEY_HINT, settings_of
from neows_async.cli.event_lines import line_of
from neows_async.cli.exit_codes import ExitCode
from neows_async.cli.foreground import run_on_lake
from neows_async.cli.options import Command, option
from neows_async.cli.run import SECTIONS, given_options, read_key, values_of
from neows_async.errors import KeyRefusedError
from neows_async.lake.storage import open_storage
from neows_async.pacing.simulation import compare_starts, simulate

if TYPE_CHECKING:
    from neows_async.api.plan_facts import PlanFacts
    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.settings import Settings
    from neows_async.telemetry.events import Event

# The options of run that change how it goes; the others change what it writes.
_OF_RUN: Final = {
    *("limit", "all_", "root", "base_url", "page_size", "concurrency", "max_rate_per_s", "max_wait_s"),
    *("budget_requests", "request_timeout_s", "max_body_bytes", "snapshot", "fresh", "resume_within_s"),
    *("no_archive", "no_shared_quota", "config"),
}
_SECTIONS: Final = {
    **{
        title: [one for one in options if one.name in _OF_RUN]
        for title, options in SECTIONS.items()
        if any(one.name in _OF_RUN for one in options)
    },
    "The plan": [
        option("--no-request", is_flag=True, help="Send no request: plan from the last receipt and the shared quota."),
        option("--json", "json", is_flag=True, help="One JSON value on stdout, errors as JSON lines on stderr."),
    ],
}


@click.command(
    cls=Command,
    sections=_SECTIONS,
    epilog=f"""Examples:
  neows-async plan --all                         the whole catalogue, with the key that a run would use
  neows-async plan --all --no-request            from the last receipt and the shared quota
  neows-async plan --all --max-wait 10m          when it would pause
  neows-async plan --all --json | jq -r .best.start

Use the options of the run that you plan. Times are UTC. Nothing is written to the lake. Exit codes are those of run:
0 with a plan, {ExitCode.PAUSED} if the quota allows no request and there is no receipt to plan from.""",
)
@click.pass_context
def plan(ctx: click.Context, /, **options: Any) -> None:
    """Show what a run would cost, when it would end, and the best minute to start.

    Sends one request, which counts against the quota, and writes nothing.
    """
    key = read_key(ctx)
    may_request = not options["no_request"]
    if key is None and may_request:
        raise KeyRefusedError(
            f"a plan sends one request, which needs a key: set {DEMO_KEY_HINT}, or plan from the last receipt with "
            "--no-request"
        )
    settings = settings_of(values_of(ctx, options, given_options(ctx, options), key, "nasa"))
    gather = partial(
        _gather_facts,
        settings=settings,
        may_request=may_request,
        share_quota=key is not None and not options["no_shared_quota"],
        as_json=options["json"],
    )
    _print(run_on_lake(gather, settings.root), as_json=options["json"])


async def _gather_facts(
    lake: AsyncStorage, *, settings: Settings, may_request: bool, share_quota: bool, as_json: bool
) -> PlanFacts:
    # Arrow and httpx are imported here: 0.2 s that `plan --help` does without.
    from neows_async.api.plan import gather_facts  # noqa: PLC0415 - as said
    from neows_async.cli import parts  # noqa: PLC0415 - as above
    from neows_async.sources.nasa import origin_of  # noqa: PLC0415 - as above

    names = parts.PartNames(source="nasa", share_quota=share_quota)

    def print_event(event: Event) -> None:
        if (line := line_of(event)) is not None:
            output.notice(line, as_json=as_json)

    # Closed before anything is printed: connections and the quota store end with the plan.
    async with AsyncExitStack() as stack:
        return await gather_facts(
            settings,
            lake,
            origin=origin_of(settings.base_url),
            source=await parts.open_source(settings, names, open_storage(settings.root), stack)
            if may_request
            else None,
            rules=parts.pacing_rules(settings, names),
            quota_store=await parts.open_quota_store(settings, names, stack),
            clock=time.time,
            listener=print_event,
        )


def _print(facts: PlanFacts, *, as_json: bool) -> None:
    starts = compare_starts(facts.conditions, facts.at_s)
    optimistic = simulate(facts.optimistic, facts.at_s)
    with output.printing_answer():
        if as_json:
            click.echo(json.dumps(plan_view.as_json(facts, starts, optimistic)))
            return
        unicode = "utf" in (getattr(sys.stdout, "encoding", None) or "").lower()
        for line in plan_view.lines(facts, starts, optimistic, unicode=unicode):
            click.echo(output.clean(line))
