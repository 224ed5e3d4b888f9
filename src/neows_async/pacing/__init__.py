"""When the next request may go out: a model of the gateway's quota, as seen from a client. Pure."""

from neows_async.pacing.hour import HourBound, HourCounts
from neows_async.pacing.quota import Pacing
from neows_async.pacing.rules import API_DATA_GOV_BURSTS, Burst, PacingRules
from neows_async.pacing.state import PacingSnapshot

__all__ = ["API_DATA_GOV_BURSTS", "Burst", "HourBound", "HourCounts", "Pacing", "PacingRules", "PacingSnapshot"]
