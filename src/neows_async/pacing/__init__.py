"""When the next request may go out: a model of the gateway's quota, as seen from a client. Pure."""

from neows_async.pacing.bursts import API_DATA_GOV_BURSTS, Burst
from neows_async.pacing.counts import HourCounts
from neows_async.pacing.hour import HourBound
from neows_async.pacing.pacing import Pacing, PacingRules
from neows_async.pacing.snapshot import PacingSnapshot

__all__ = ["API_DATA_GOV_BURSTS", "Burst", "HourBound", "HourCounts", "Pacing", "PacingRules", "PacingSnapshot"]
