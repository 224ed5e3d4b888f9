"""Runs, drawn against the hours: how many requests a minute go out, and when none does. Pure."""

from __future__ import annotations

import bisect
import datetime as dt
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neows_async.prospect import Run

_CELLS: Final = 64
_STEPS_S: Final = (
    *(300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200),
    *(86_400, 172_800, 432_000, 864_000, 2_592_000),
)
_LABELS: Final = 8
_DAY_S: Final = 86_400
_FINE: Final = "▁▂▃▄▅▆▇█"
_PLAIN: Final = "-=#"


def draw(runs: Sequence[tuple[str, Run]], *, fine: bool) -> list[str]:
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


def _count(run: Run, begins_s: float, cell_s: float) -> list[int]:
    borders = [bisect.bisect_left(run.sent_s, begins_s + cell_s * number) for number in range(1, _CELLS)]
    return [after - before for before, after in zip([0, *borders], [*borders, len(run.sent_s)], strict=True)]


def _cell(run: Run, from_s: float, cell_s: float, count: int, most: int, fine: bool) -> str:  # noqa: FBT001 - passed on
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
