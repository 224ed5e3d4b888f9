"""Durations as people write them: ``90``, ``90s``, ``15m``, ``24h``, ``2d``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    _ParamType = click.ParamType[float]
else:
    _ParamType = click.ParamType  # generic for type checkers alone, until click 8.4

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|)")
_UNIT_S: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


class Duration(_ParamType):
    """Seconds, or a number with one of s, m, h, d."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """In seconds."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        match = _DURATION.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no duration; write seconds, or a number with s, m, h or d, e.g. 15m", param, ctx)
        return float(match[1]) * _UNIT_S[match[2]]


def told(seconds: float) -> str:
    """The shortest way to write so many seconds."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNIT_S[unit] == 0:
            return f"{seconds / _UNIT_S[unit]:g}{unit}"
    return f"{seconds:g}s"
