"""A run's events as structlog events."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any, Final

import structlog

from neows_async.telemetry import events

if TYPE_CHECKING:
    from neows_async.telemetry.events import Event, Listener

_ONCE_A_PAGE: Final = (events.PageFetched, events.PageWritten)
_WARNINGS: Final = (
    events.SnapshotPassedOver,
    events.AttemptFailed,
    events.QuotaSharingFailed,
    events.SourceDown,
    events.SourceStillDown,
    events.PageDeferred,
    events.PageMissing,
    events.PageDamaged,
    events.ObjectRejected,
)
_LEVELS: Final = {"paused": logging.WARNING, "cancelled": logging.WARNING, "failed": logging.ERROR}


def logs(logger: Any = None) -> Listener:
    """A listener that logs each event under its name (``page_fetched``), with its fields as the event dictionary.

    Events of each page have the level ``debug``, failures ``warning``, a failed run ``error``, others ``info``.
    Of a rejected object, the place and the reason are logged, but not its text.

    :param logger: your logger, with the values you bound to it; by default one called ``neows_async``
    """
    log = logger if logger is not None else structlog.get_logger("neows_async")

    def listen(event: Event) -> None:
        if isinstance(event, events.Aggregated):
            return  # hundreds of figures, up to once a second
        log.log(_level(event), events.name_of(event), **_fields(event))

    return listen


def _level(event: Event) -> int:
    if isinstance(event, events.RunEnded):
        return _LEVELS.get(event.outcome, logging.INFO)
    if isinstance(event, _ONCE_A_PAGE):
        return logging.DEBUG
    return logging.WARNING if isinstance(event, _WARNINGS) else logging.INFO


def _fields(event: Event) -> dict[str, Any]:
    if isinstance(event, events.ObjectRejected):
        # Without its text: logs are kept longer and read by more people than the quarantine.
        return {name: value for name, value in event.rejected.as_json().items() if name != "raw"}
    fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
    rate_limit = fields.pop("rate_limit", None)
    if rate_limit is not None:
        fields |= {"quota_limit": rate_limit.limit, "quota_remaining": rate_limit.remaining}
    return fields
