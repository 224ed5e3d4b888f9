"""A plan in words, as a drawing, and as JSON. Pure."""

from __future__ import annotations

import bisect
import datetime as dt
import math
from typing import TYPE_CHECKING, Any, Final

from neows_async.cli.output import counted
from neows_async.pacing.forecast import BURST_RATE_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from neows_async.api.plan import PlanFacts
    from neows_async.pacing.simulation import RunOptions, SimulatedRun

_CELLS: Final = 64
_STEPS_S: Final = (
    *(300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200),
    *(86_400, 172_800, 432_000, 864_000, 2_592_000),
)
_LABELS: Final = 8
_DAY_S: Final = 86_400
_FINE: Final = "▁▂▃▄▅▆▇█"
_PLAIN: Final = "-=#"
_WAITS: Final = 3
_WIDTH: Final = 80
_DRAWN_S: Final = 600.0
_SAME_S: Final = 60.0
_SAME_SHARE: Final = 0.02
_PAUSED: Final = 75


def lines(known: PlanFacts, prospect: RunOptions, hopeful: SimulatedRun, *, fine: bool) -> Iterator[str]:
    """For people.

    :param hopeful: a run now, if what the key has used comes free as early as it can
    :param fine: whether the terminal has more than ASCII
    """
    yield from _catalogue(known)
    for note in known.notes:
        yield f"  {note}"
    if not known.terms.requests:
        yield "A run would ask for nothing: all its pages are in"
        return
    yield _quota(known)
    yield ""
    yield from _runs(known, prospect, hopeful)
    now, best = prospect.now, prospect.best
    if now.lasts_s >= _DRAWN_S and math.isfinite(now.end_s):
        rows = [("now", now)] + ([(_minute(best.start_s), best)] if best is not now else [])
        yield ""
        yield from draw(rows, fine=fine)
    yield ""
    yield from _assumed(known)


def _catalogue(known: PlanFacts) -> Iterator[str]:
    plan, found = known.plan, known.lake
    total = f"{plan.total_elements:,}"
    wanted = f"all {total}" if plan.positions == plan.total_elements else f"the first {plan.positions:,} of {total}"
    yield f"Objects:  {wanted}, on {counted(plan.pages, 'page')} of {plan.page_size}"
    if found.committed:
        yield f"Requests: 0; snapshot {found.snapshot} is committed"
        return
    kept = f"; {counted(known.pages_kept, 'page')} of unfinished snapshot {found.snapshot} kept" if found.kept else ""
    yield f"Requests: {known.terms.requests:,}{kept}"
    if found.holder is not None:
        yield f"  another run writes snapshot {found.snapshot} ({found.holder}): a run now would end with 73"


def _quota(known: PlanFacts) -> str:
    quota = known.quota
    if quota.limit is None:
        # A gateway that was asked and says nothing has none.
        return "Quota:    none" if known.asked else "Quota:    not known, and none assumed; ask, without --no-request"
    asked = "; the one for this plan is counted" if known.asked else ""
    whence = {"answer": "", "ledger": ", by the shared ledger", "receipt": ", by the last receipt"}[quota.told_by]
    old = (
        f" at {_moment(quota.as_of_s, known.at_s, seconds=True)}"
        if not known.asked and quota.as_of_s is not None
        else ""
    )
    daily = "" if quota.daily_left is None else f"; {quota.daily_left:,} of {quota.daily_limit:,} today"
    return f"Quota:    {quota.left:,} of {quota.limit:,} an hour left{daily}{whence}{old}{asked}"


def _runs(known: PlanFacts, prospect: RunOptions, hopeful: SimulatedRun) -> Iterator[str]:
    now, best, shortest, at_s = prospect.now, prospect.best, prospect.shortest, known.at_s
    if now.done:
        yield f"Started now, {_moment(at_s, at_s, seconds=True)} UTC, it ends {_end(now, at_s)}"
        if _differ(now, hopeful):
            yield (
                f"  or as early as {_moment(hopeful.end_s, at_s)}: when the {_used(known):,} used come free is "
                "not known"
            )
    else:
        yield from _stops(known, now)
    yield from _waits(known, now)
    if best is not now:
        yield from _better(now, best, at_s)
    elif now.done:
        yield "Best minute to start: now"
    if shortest is not best:
        yield from _in_room(
            f"Shortest when started at {_moment(shortest.start_s, at_s)}: {_span(shortest.lasts_s)},",
            f"but it ends {_span(shortest.end_s - best.end_s)} later, at {_moment(shortest.end_s, at_s)}",
        )


def _end(run: SimulatedRun, at_s: float) -> str:
    if not math.isfinite(run.end_s):
        return "not within a year"
    return f"at {_moment(run.end_s, at_s, seconds=run.lasts_s < _DRAWN_S)}, after {_span(run.lasts_s)}"


def _stops(known: PlanFacts, now: SimulatedRun) -> Iterator[str]:
    sent, at_s = len(now.sent_s), known.at_s
    why = "--budget" if known.terms.budget_requests == sent else "--max-wait"
    resume_s = now.end_s if now.resume_s is None else now.resume_s
    yield (
        f"Started now, {_moment(at_s, at_s, seconds=True)} UTC, it pauses at {_moment(now.end_s, at_s)} ({why}, exit "
        f"code {_PAUSED}) after {counted(sent, 'request')}, with {now.left:,} to go"
    )
    yield f"  the same command goes on at {_moment(resume_s, at_s)} or later"


def _waits(known: PlanFacts, run: SimulatedRun) -> Iterator[str]:
    at_s, rate = known.at_s, known.terms.max_rate_per_s
    # So slow a rate makes waits of its own.
    what = "--max-rate or the quota" if rate is not None and rate * _SAME_S < 1 else "the quota"
    for wait in run.waits[:_WAITS]:
        sent = sum(one <= wait.from_s for one in run.sent_s)
        yield from _in_room(
            f"  waits for {what} after {counted(sent, 'request')}:",
            f"{_moment(wait.from_s, at_s)} to {_moment(wait.to_s, at_s)}",
        )
    if len(run.waits) > _WAITS:
        yield f"  and so on, {len(run.waits):,} waits in all"


def _better(now: SimulatedRun, best: SimulatedRun, at_s: float) -> Iterator[str]:
    when = f"Best minute to start: {_moment(best.start_s, at_s)}; it takes {_span(best.lasts_s)}"
    if not now.done:
        yield from _in_room(f"{when},", f"ends at {_moment(best.end_s, at_s)}, and does not pause")
        return
    later_s = best.end_s - now.end_s
    end = "ends no later" if later_s <= _SAME_S else f"ends {_span(later_s)} later"
    yield from _in_room(f"{when}, {_span(now.lasts_s - best.lasts_s)} less,", f"and {end}")


def _in_room(first: str, rest: str) -> tuple[str, ...]:
    """One line or, where that is too long, as with a date in it, two."""
    line = f"{first} {rest}"
    return (line,) if len(line) <= _WIDTH else (first, f"    {rest}")


def _differ(now: SimulatedRun, hopeful: SimulatedRun) -> bool:
    return hopeful.done and now.end_s - hopeful.end_s > max(_SAME_S, _SAME_SHARE * now.lasts_s)


def _used(known: PlanFacts) -> int:
    return (known.quota.limit or 0) - (known.quota.left or 0)


def _assumed(known: PlanFacts) -> Iterator[str]:
    terms = known.terms
    whence = {
        "answer": "as this plan's one request took",
        "receipt": f"the mean of the last run's {known.answers:,}",
        "nobody": "a guess, nothing was measured",
    }[known.answer_from]
    rate = terms.max_rate_per_s
    most = "" if rate is None else f" and {rate:.3g} a second"
    bursts = " (the gateway's burst limits)" if rate == BURST_RATE_PER_S else ""
    yield f"Assumed:  {terms.answer_s:.2g} s an answer ({whence}),"
    yield f"  at most {terms.concurrency} at once{most}{bursts},"
    yield "  nobody else on the key, no failures, and a catalogue that stays as it is"


# -- times --------------------------------------------------------------------------------------


def _minute(at_s: float) -> str:
    return f"{dt.datetime.fromtimestamp(at_s, dt.UTC):%H:%M}"


def _moment(at_s: float, now_s: float, *, seconds: bool = False) -> str:
    """In UTC; with the day, if it is not today."""
    if not math.isfinite(at_s):
        return "an unknown time"
    # A minute that has begun is not over: who reads an end at 16:41 finds it ended at 16:41.
    at = dt.datetime.fromtimestamp(at_s if seconds else math.ceil(at_s / 60 - 0.05) * 60, dt.UTC)
    same = at.date() == dt.datetime.fromtimestamp(now_s, dt.UTC).date()
    return f"{at:%H:%M:%S}" if seconds else f"{at:%H:%M}" if same else f"{at:%Y-%m-%d %H:%M}"


def _span(seconds: float) -> str:
    """``45 s``, ``12 min``, ``2 h 4 min``, ``40 d 18 h``."""
    if seconds < 100:  # noqa: PLR2004 - in seconds as long as it is read that way
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


def as_json(known: PlanFacts, prospect: RunOptions, hopeful: SimulatedRun) -> dict[str, Any]:
    """For programs; the README says what each member is."""
    plan, quota, terms, found = known.plan, known.quota, known.terms, known.lake
    return {
        "at": _iso(known.at_s),
        "objects": {"catalogue": plan.total_elements, "wanted": plan.positions},
        "pages": {"size": plan.page_size, "wanted": plan.pages, "kept": known.pages_kept},
        "requests": {"needed": terms.requests, "asked": known.asked},
        "snapshot": {"id": found.snapshot, "committed": found.committed, "held_by": found.holder},
        "quota": {
            "limit": quota.limit,
            "left": quota.left,
            "daily_limit": quota.daily_limit,
            "daily_left": quota.daily_left,
            "told_by": quota.told_by,
            "told_at": _iso(quota.as_of_s),
        },
        "assumed": {
            "answer_s": round(terms.answer_s, 3),
            "answer_from": known.answer_from,
            "answers": known.answers,
            "concurrency": terms.concurrency,
            "max_rate_per_s": terms.max_rate_per_s,
        },
        "now": _run(prospect.now),
        "earliest_end": _iso(min(hopeful.end_s, prospect.now.end_s) if hopeful.done else prospect.now.end_s),
        "best": _run(prospect.best),
        "shortest": _run(prospect.shortest),
        "notes": list(known.notes),
    }


def _run(run: SimulatedRun) -> dict[str, Any]:
    return {
        "start": _iso(run.start_s),
        "end": _iso(run.end_s),
        "lasts_s": round(run.lasts_s, 1) if math.isfinite(run.end_s) else None,
        "exit_code": 0 if run.done else _PAUSED,
        "requests_left": run.left,
        "resume_at": _iso(run.resume_s),
        "waits": [{"from": _iso(wait.from_s), "to": _iso(wait.to_s)} for wait in run.waits],
    }


def draw(runs: Sequence[tuple[str, SimulatedRun]], *, fine: bool) -> list[str]:
    """Lines of at most 79 characters: the hours, then each run by its label, on the same scale.

    :param runs: label and run; none may end at infinity
    :param fine: Unicode's blocks; else what every terminal has
    """
    begins_s = min(run.start_s for _, run in runs)
    ends_s = max(run.end_s for _, run in runs)
    cell_s = max(ends_s - begins_s, 1.0) / _CELLS
    counted = [_count(run, begins_s, cell_s) for _, run in runs]
    most = max(max(counts) for counts in counted)
    width = max(len(label) for label, _ in runs)
    lines = [f"{'':{width}}  {_hours(begins_s, ends_s, cell_s)}"]
    for (label, run), counts in zip(runs, counted, strict=True):
        cells = [_cell(run, begins_s + cell_s * number, cell_s, counts[number], most, fine) for number in range(_CELLS)]
        lines.append(f"{label:{width}}  {''.join(cells)}".rstrip())
    full, nothing = (_FINE[-1], "·") if fine else (_PLAIN[-1], ".")
    a_minute = most / cell_s * 60
    lines.append(f"{'':{width}}  {full} {a_minute:,.{0 if a_minute >= 10 else 1}f} requests a minute, {nothing} none")  # noqa: PLR2004 - two digits are enough
    return lines


def _count(run: SimulatedRun, begins_s: float, cell_s: float) -> list[int]:
    borders = [bisect.bisect_left(run.sent_s, begins_s + cell_s * number) for number in range(1, _CELLS)]
    return [after - before for before, after in zip([0, *borders], [*borders, len(run.sent_s)], strict=True)]


def _cell(run: SimulatedRun, from_s: float, cell_s: float, count: int, most: int, fine: bool) -> str:  # noqa: FBT001 - passed on
    if not count:
        return ("·" if fine else ".") if run.start_s < from_s + cell_s and from_s < run.end_s else " "
    levels = _FINE if fine else _PLAIN
    return levels[math.ceil(count / most * len(levels)) - 1]


def _hours(begins_s: float, ends_s: float, cell_s: float) -> str:
    """The first and the last moment, and between them round ones where there is room."""
    step_s = next((step_s for step_s in _STEPS_S if (ends_s - begins_s) / step_s <= _LABELS), _STEPS_S[-1])
    days = ends_s - begins_s > _DAY_S

    def told(at_s: float) -> str:
        at = dt.datetime.fromtimestamp(at_s, dt.UTC)
        return f"{at:%b} {at.day}" if days else f"{at:%H:%M}"

    # The end is in the minute that has begun then, as the words have it.
    first, last = told(begins_s), told(math.ceil(ends_s / 60 - 0.05) * 60)
    line = first.ljust(_CELLS)
    end = _CELLS - len(last)
    at_s, free = (math.floor(begins_s / step_s) + 1) * step_s, len(first) + 1
    while at_s < ends_s:
        cell = int((at_s - begins_s) / cell_s)
        label = told(at_s)
        if free <= cell and cell + len(label) < end:
            line = line[:cell] + label + line[cell + len(label) :]
            free = cell + len(label) + 1
        at_s += step_s
    return line[:end] + last
