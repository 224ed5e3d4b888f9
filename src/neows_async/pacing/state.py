"""The state of a :class:`QuotaModel`, as a value that JSON can hold."""

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
    """Everything that another process with the same key needs to continue. All times are UTC, seconds since 1970.

    :param hour: the sliding hour; None before the first response
    :param in_flight: (ticket, time of sending) of each request without a response
    :param next_ticket: the next ticket; each is given once
    :param held_until_s: a 429 forbids every request before this time
    :param probing: whether one request must succeed after that, before others follow
    :param probe: the ticket of that request, once it is in flight
    :param sent_s: when the last request was sent
    :param arrived_s: when the requests of the last seconds ended, ascending
    :param days: (days since 1970, requests counted), for today and yesterday
    """

    hour: HourEstimate | None = None
    in_flight: tuple[tuple[int, float], ...] = ()
    next_ticket: int = 0
    held_until_s: float | None = None
    probing: bool = False
    probe: int | None = None
    sent_s: float | None = None
    arrived_s: tuple[float, ...] = ()
    days: tuple[tuple[int, int], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values. Infinity is null."""
        plain = asdict(self)
        if self.hour is not None:
            plain["hour"] = {
                name: None if isinstance(value, float) and math.isinf(value) else value
                for name, value in msgspec.structs.asdict(self.hour).items()
            }
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> QuotaState:
        """Return the state whose :meth:`as_json` is ``plain``."""
        try:
            hour = plain["hour"]
            values = {name: _tuples(value) for name, value in plain.items()}
            values["hour"] = None if hour is None else _hour(hour)
            return cls(**values)
        except (AttributeError, KeyError, TypeError) as exc:
            raise ValueError(f"not a quota state of this version: {exc}") from exc


def _hour(plain: Mapping[str, Any]) -> HourEstimate:
    values = {name: _tuples(value) for name, value in plain.items()}
    if values["previous_max"] is None:
        values["previous_max"] = math.inf
    # Every field must be there: a default would be a guess about the gateway.
    missing = set(HourEstimate.__struct_fields__) - values.keys()
    if missing:
        raise KeyError(", ".join(sorted(missing)))
    return HourEstimate(**values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list | tuple) else value
