"""A plan as text and as JSON. Pure."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING, Any, Final

from neows_async.cli.exit_codes import ExitCode
from neows_async.cli.output import counted
from neows_async.cli.timeline import draw_timeline
from neows_async.pacing.forecast import BURST_RATE_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neows_async.api.plan_facts import PlanFacts
    from neows_async.pacing.simulation import RunOptions, SimulatedRun

_DAY_S: Final = 86_400
_MAX_WAITS: Final = 3
_WIDTH: Final = 80
_LONG_RUN_S: Final = 600.0  # drawn, and its end is given in minutes
# Two ends that differ by less are the same to people.
_SAME_S: Final = 60.0
_SAME_SHARE: Final = 0.02


def lines(facts: PlanFacts, starts: RunOptions, optimistic: SimulatedRun, *, unicode: bool) -> Iterator[str]:
    """The plan as text.

    :param optimistic: a run now, if the used quota becomes free as early as possible
    :param unicode: whether the terminal shows more than ASCII
    """
    yield from _catalogue(facts)
    for note in facts.notes:
        yield f"  {note}"
    # Nothing below has a meaning without a request.
    if not facts.conditions.requests:
        yield "A run would send no request: all its pages are stored"
        return
    yield _quota(facts)
    yield ""
    yield from _runs(facts, starts, optimistic)
    now, best = starts.now, starts.best
    if now.lasts_s >= _LONG_RUN_S and math.isfinite(now.end_s):
        rows = [("now", now)] + ([(_minute(best.start_s), best)] if best is not now else [])
        yield ""
        yield from draw_timeline(rows, unicode=unicode)
    yield ""
    yield from _assumed(facts)


def _catalogue(facts: PlanFacts) -> Iterator[str]:
    plan, found = facts.page_plan, facts.lake
    total = f"{plan.total_elements:,}"
    wanted = f"all {total}" if plan.positions == plan.total_elements else f"the first {plan.positions:,} of {total}"
    yield f"Objects:  {wanted}, on {counted(plan.pages, 'page')} of {plan.page_size}"
    if found.committed:
        yield f"Requests: 0; snapshot {found.snapshot} is committed"
        return
    kept = f"; {counted(facts.pages_kept, 'page')} of unfinished snapshot {found.snapshot} stored" if found.kept else ""
    yield f"Requests: {facts.conditions.requests:,}{kept}"
    if found.holder is not None:
        held = f"another run writes snapshot {found.snapshot} ({found.holder})"
        yield f"  {held}; a run now would exit with {ExitCode.HELD}"


def _quota(facts: PlanFacts) -> str:
    quota = facts.quota
    if quota.limit is None:
        # A response without the quota's headers comes from a gateway without a quota.
        return (
            "Quota:    none"
            if facts.requests_sent
            else "Quota:    unknown, none assumed; plan without --no-request to see it"
        )
    asked = "; this plan's request is counted" if facts.requests_sent else ""
    origin = {"answer": "", "ledger": ", by the shared quota", "receipt": ", by the last receipt"}[quota.known_from]
    old = ""
    if not facts.requests_sent and quota.as_of_s is not None:
        old = f" at {_moment(quota.as_of_s, facts.at_s, seconds=True)}"
    daily = "" if quota.daily_left is None else f"; {quota.daily_left:,} of {quota.daily_limit:,} today"
    return f"Quota:    {quota.left:,} of {quota.limit:,} an hour left{daily}{origin}{old}{asked}"


def _runs(facts: PlanFacts, starts: RunOptions, optimistic: SimulatedRun) -> Iterator[str]:
    now, best, shortest, at_s = starts.now, starts.best, starts.shortest, facts.at_s
    if now.done:
        yield f"Started now, {_moment(at_s, at_s, seconds=True)} UTC, it ends {_end(now, at_s)}"
        if _differ(now, optimistic):
            early = _moment(optimistic.end_s, at_s)
            yield f"  or as early as {early}, depending on when the {_used(facts):,} used become free"
    else:
        yield from _stops(facts, now)
    yield from _waits(facts, now)
    if best is not now:
        yield from _better(now, best, at_s)
    elif now.done:
        yield "Best minute to start: now"
    if shortest is not best:
        yield from _on_one_line_or_two(
            f"Shortest when started at {_moment(shortest.start_s, at_s)}: {_span(shortest.lasts_s)},",
            f"but it ends {_span(shortest.end_s - best.end_s)} later, at {_moment(shortest.end_s, at_s)}",
        )


def _end(run: SimulatedRun, at_s: float) -> str:
    if not math.isfinite(run.end_s):
        return "not within a year"
    return f"at {_moment(run.end_s, at_s, seconds=run.lasts_s < _LONG_RUN_S)}, after {_span(run.lasts_s)}"


def _stops(facts: PlanFacts, now: SimulatedRun) -> Iterator[str]:
    sent, at_s = len(now.sent_s), facts.at_s
    why = "--budget" if facts.conditions.budget_requests == sent else "--max-wait"
    resume_s = now.end_s if now.resume_s is None else now.resume_s
    yield (
        f"Started now, {_moment(at_s, at_s, seconds=True)} UTC, it pauses at {_moment(now.end_s, at_s)} ({why}, exit "
        f"code {ExitCode.PAUSED}) after {counted(sent, 'request')}, with {now.left:,} to go"
    )
    yield f"  the same command resumes it at {_moment(resume_s, at_s)} or later"


def _waits(facts: PlanFacts, run: SimulatedRun) -> Iterator[str]:
    at_s, rate = facts.at_s, facts.conditions.max_rate_per_s
    # Below one request a minute, the gaps of --max-rate show as waits too.
    what = "--max-rate or the quota" if rate is not None and rate * _SAME_S < 1 else "the quota"
    for wait in run.waits[:_MAX_WAITS]:
        sent = sum(one <= wait.from_s for one in run.sent_s)
        yield from _on_one_line_or_two(
            f"  waits for {what} after {counted(sent, 'request')}:",
            f"{_moment(wait.from_s, at_s)} to {_moment(wait.to_s, at_s)}",
        )
    if len(run.waits) > _MAX_WAITS:
        yield f"  … {len(run.waits):,} waits in all"


def _better(now: SimulatedRun, best: SimulatedRun, at_s: float) -> Iterator[str]:
    when = f"Best minute to start: {_moment(best.start_s, at_s)}; it takes {_span(best.lasts_s)}"
    if not now.done:
        yield from _on_one_line_or_two(f"{when},", f"ends at {_moment(best.end_s, at_s)}, and does not pause")
        return
    later_s = best.end_s - now.end_s
    end = "ends no later" if later_s <= _SAME_S else f"ends {_span(later_s)} later"
    yield from _on_one_line_or_two(f"{when}, {_span(now.lasts_s - best.lasts_s)} less,", f"and {end}")


def _on_one_line_or_two(first: str, rest: str) -> tuple[str, ...]:
    """Two lines if one is too long, e.g. with a date in it."""
    line = f"{first} {rest}"
    return (line,) if len(line) <= _WIDTH else (first, f"    {rest}")


def _differ(now: SimulatedRun, optimistic: SimulatedRun) -> bool:
    return optimistic.done and now.end_s - optimistic.end_s > max(_SAME_S, _SAME_SHARE * now.lasts_s)


def _used(facts: PlanFacts) -> int:
    return (facts.quota.limit or 0) - (facts.quota.left or 0)


def _assumed(facts: PlanFacts) -> Iterator[str]:
    conditions = facts.conditions
    origin = {
        "answer": "measured by this plan's request",
        "receipt": f"the mean of the last run's {facts.responses:,}",
        "nobody": "a guess, nothing was measured",
    }[facts.latency_from]
    rate = conditions.max_rate_per_s
    most = "" if rate is None else f" and {rate:.3g} per second"
    bursts = " (the gateway's burst limits)" if rate == BURST_RATE_PER_S else ""
    yield f"Assumed:  {conditions.latency_s:.2g} s per response ({origin}),"
    yield f"  at most {conditions.concurrency} in parallel{most}{bursts},"
    yield "  no other user of the key, no failures, and a catalogue that does not change"


# -- times --------------------------------------------------------------------------------------


def _minute(at_s: float) -> str:
    return f"{dt.datetime.fromtimestamp(at_s, dt.UTC):%H:%M}"


def _moment(at_s: float, now_s: float, *, seconds: bool = False) -> str:
    """A time in UTC, with the date if it is not today's."""
    if not math.isfinite(at_s):
        return "an unknown time"
    # Rounded up: a run that is shown to end at 16:41 has ended at 16:41.
    at = dt.datetime.fromtimestamp(at_s if seconds else math.ceil(at_s / 60 - 0.05) * 60, dt.UTC)
    same = at.date() == dt.datetime.fromtimestamp(now_s, dt.UTC).date()
    return f"{at:%H:%M:%S}" if seconds else f"{at:%H:%M}" if same else f"{at:%Y-%m-%d %H:%M}"


def _span(seconds: float) -> str:
    """``45 s``, ``12 min``, ``2 h 4 min``, ``40 d 18 h``."""
    if seconds < 100:  # noqa: PLR2004 - below, seconds are easier to read
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 100:  # noqa: PLR2004 - as above
        return f"{minutes} min"
    if seconds < 2 * _DAY_S:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def _iso(at_s: float | None) -> str | None:
    if at_s is None or not math.isfinite(at_s):
        return None
    return dt.datetime.fromtimestamp(math.ceil(at_s), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- JSON ---------------------------------------------------------------------------------------


def as_json(facts: PlanFacts, starts: RunOptions, optimistic: SimulatedRun) -> dict[str, Any]:
    """The plan as JSON. The README describes the members."""
    plan, quota, conditions, found = facts.page_plan, facts.quota, facts.conditions, facts.lake
    return {
        "at": _iso(facts.at_s),
        "objects": {"catalogue": plan.total_elements, "wanted": plan.positions},
        "pages": {"size": plan.page_size, "wanted": plan.pages, "kept": facts.pages_kept},
        "requests": {"needed": conditions.requests, "asked": facts.requests_sent},
        "snapshot": {"id": found.snapshot, "committed": found.committed, "held_by": found.holder},
        "quota": {
            "limit": quota.limit,
            "left": quota.left,
            "daily_limit": quota.daily_limit,
            "daily_left": quota.daily_left,
            "told_by": quota.known_from,
            "told_at": _iso(quota.as_of_s),
        },
        "assumed": {
            "answer_s": round(conditions.latency_s, 3),
            "answer_from": facts.latency_from,
            "answers": facts.responses,
            "concurrency": conditions.concurrency,
            "max_rate_per_s": conditions.max_rate_per_s,
        },
        "now": _run(starts.now),
        "earliest_end": _iso(min(optimistic.end_s, starts.now.end_s) if optimistic.done else starts.now.end_s),
        "best": _run(starts.best),
        "shortest": _run(starts.shortest),
        "notes": list(facts.notes),
    }


def _run(run: SimulatedRun) -> dict[str, Any]:
    return {
        "start": _iso(run.start_s),
        "end": _iso(run.end_s),
        "lasts_s": round(run.lasts_s, 1) if math.isfinite(run.end_s) else None,
        "exit_code": 0 if run.done else int(ExitCode.PAUSED),
        "requests_left": run.left,
        "resume_at": _iso(run.resume_s),
        "waits": [{"from": _iso(wait.from_s), "to": _iso(wait.to_s)} for wait in run.waits],
    }
