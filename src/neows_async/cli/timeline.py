"""Draws when a run sends its requests. Pure."""

from __future__ import annotations

import bisect
import datetime as dt
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neows_async.pacing.simulation import SimulatedRun

_CELLS: Final = 64
# Distances between the labels of the time axis.
_STEPS_S: Final = (
    *(300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200),
    *(86_400, 172_800, 432_000, 864_000, 2_592_000),
)
_LABELS: Final = 8
_DAY_S: Final = 86_400
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_ASCII: Final = "-=#"


def draw_timeline(runs: Sequence[tuple[str, SimulatedRun]], *, unicode: bool) -> list[str]:
    """Lines of at most 79 characters: the time axis, one line a run, and the scale, which is the same for all.

    :param runs: label and run; none may end at infinity
    :param unicode: draw with Unicode's blocks, else with ASCII
    """
    start_s = min(run.start_s for _, run in runs)
    end_s = max(run.end_s for _, run in runs)
    cell_s = max(end_s - start_s, 1.0) / _CELLS
    per_run = [_requests_by_cell(run, start_s, cell_s) for _, run in runs]
    most = max(max(counts) for counts in per_run)
    width = max(len(label) for label, _ in runs)
    lines = [f"{'':{width}}  {_axis(start_s, end_s, cell_s)}"]
    for (label, run), counts in zip(runs, per_run, strict=True):
        cells = [
            _cell(run, start_s + cell_s * number, cell_s, counts[number], most, unicode) for number in range(_CELLS)
        ]
        lines.append(f"{label:{width}}  {''.join(cells)}".rstrip())
    full, nothing = (_BLOCKS[-1], "·") if unicode else (_ASCII[-1], ".")
    per_minute = most / cell_s * 60
    digits = 0 if per_minute >= 10 else 1  # noqa: PLR2004 - two significant ones are enough
    lines.append(f"{'':{width}}  {full} {per_minute:,.{digits}f} requests per minute, {nothing} none")
    return lines


def _requests_by_cell(run: SimulatedRun, start_s: float, cell_s: float) -> list[int]:
    borders = [bisect.bisect_left(run.sent_s, start_s + cell_s * number) for number in range(1, _CELLS)]
    return [after - before for before, after in zip([0, *borders], [*borders, len(run.sent_s)], strict=True)]


def _cell(run: SimulatedRun, from_s: float, cell_s: float, count: int, most: int, unicode: bool) -> str:  # noqa: FBT001 - passed on
    if not count:
        return ("·" if unicode else ".") if run.start_s < from_s + cell_s and from_s < run.end_s else " "
    levels = _BLOCKS if unicode else _ASCII
    return levels[math.ceil(count / most * len(levels)) - 1]


def _axis(start_s: float, end_s: float, cell_s: float) -> str:
    """The first and the last moment, and between them round ones where they fit."""
    step_s = next((step_s for step_s in _STEPS_S if (end_s - start_s) / step_s <= _LABELS), _STEPS_S[-1])
    days = end_s - start_s > _DAY_S

    def label_of(at_s: float) -> str:
        at = dt.datetime.fromtimestamp(at_s, dt.UTC)
        return f"{at:%b} {at.day}" if days else f"{at:%H:%M}"

    # The end is rounded up to the minute, as in the text of the plan.
    first, last = label_of(start_s), label_of(math.ceil(end_s / 60 - 0.05) * 60)
    line = first.ljust(_CELLS)
    end = _CELLS - len(last)
    at_s, free = (math.floor(start_s / step_s) + 1) * step_s, len(first) + 1
    while at_s < end_s:
        cell = int((at_s - start_s) / cell_s)
        label = label_of(at_s)
        if free <= cell and cell + len(label) < end:
            line = line[:cell] + label + line[cell + len(label) :]
            free = cell + len(label) + 1
        at_s += step_s
    return line[:end] + last
