"""What pacing knows, as a value that goes through JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from neows_async.pacing.hour import HourEstimate

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaState:
    """Everything that a resumed run, or another process with the same key, needs to go on.

    :param hour: the sliding hour; None before the first answer
    :param under_way: (ticket, UTC when it was sent) of each request without an answer
    :param next_ticket: no ticket below was given twice
    :param held_until_s: UTC, before which nothing may go out
    :param probing: whether after that one request must succeed before others follow
    :param probe: its ticket, once it is under way
    :param sent_s: UTC, when the last request went out
    :param arrived_s: UTC, of the requests of the last seconds, ascending
    :param days: (days since 1970, requests counted), of today and yesterday
    """

    hour: HourEstimate | None = None
    under_way: tuple[tuple[int, float], ...] = ()
    next_ticket: int = 0
    held_until_s: float | None = None
    probing: bool = False
    probe: int | None = None
    sent_s: float | None = None
    arrived_s: tuple[float, ...] = ()
    days: tuple[tuple[int, int], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values. An unlimited figure is null."""
        plain = asdict(self)
        if self.hour is not None:
            plain["hour"] = {
                name: None if isinstance(value, float) and math.isinf(value) else value
                for name, value in msgspec.structs.asdict(self.hour).items()
            }
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> QuotaState:
        """The reverse of :meth:`as_json`.

        :raises ValueError: it is not what ``as_json`` of this version gave; begin without one
        """
        try:
            hour = plain["hour"]
            values = {name: _tuples(value) for name, value in plain.items()}
            values["hour"] = None if hour is None else _hour(hour)
            return cls(**values)
        except (AttributeError, KeyError, TypeError) as exc:
            raise ValueError(f"not a pacing snapshot of this version: {exc}") from exc


def _hour(plain: Mapping[str, Any]) -> HourEstimate:
    values = {name: _tuples(value) for name, value in plain.items()}
    if values["previous_max"] is None:
        values["previous_max"] = math.inf
    missing = set(HourEstimate.__struct_fields__) - values.keys()
    if missing:
        raise KeyError(", ".join(sorted(missing)))
    return HourEstimate(**values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list | tuple) else value
