"""Everything a run can be told: one frozen, validated value, with units in its names.

The library reads no environment and no file; :mod:`neows_async.cli.config` does that.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
)

NASA_URL: Final = "https://api.nasa.gov"
SNAPSHOT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ORBITING_BODIES: Final = (
    "Merc",
    "Venus",
    "Earth",
    "Moon",
    "Mars",
    "Juptr",
    "Satrn",
    "Urnus",
    "Neptn",
    "Pluto",
)  # JPL's spellings, which the source uses

_FULL_NAMES: Final = {
    "mercury": "Merc",
    "jupiter": "Juptr",
    "saturn": "Satrn",
    "uranus": "Urnus",
    "neptune": "Neptn",
}

_Positive = Annotated[int, Field(ge=1)]
# A century. What is longer is a slip, and its end has no date that could be told.
_LONGEST_S: Final = 36_500 * 86_400
_Seconds = Annotated[float, Field(ge=0, le=_LONGEST_S, allow_inf_nan=False)]
_MoreSeconds = Annotated[float, Field(gt=0, le=_LONGEST_S, allow_inf_nan=False)]


class Settings(BaseModel):
    """One run's settings. ``None`` means no limit, never 0 or -1.

    *Identity* (``base_url``, ``page_size``, ``limit``) must be the same to resume an unfinished
    snapshot; *derivation* may change, since datasets are made from the raw zone; *operation*
    never matters to what is written.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=False)

    IDENTITY: ClassVar[tuple[str, ...]] = ("base_url", "page_size", "limit")
    DERIVATION: ClassVar[tuple[str, ...]] = ("partition_by", "within_au", "orbiting_body", "max_rejects")
    OPERATION: ClassVar[tuple[str, ...]] = (
        "concurrency",
        "max_rate_per_s",
        "retry_budget_s",
        "max_missing_pages",
        "archive",
        "queue_neos",
        "workers",
    )

    # Identity
    limit: _Positive | None = Field(
        default=200, description="The first N positions of Browse; None is the whole catalogue."
    )
    page_size: Annotated[int, Field(ge=1, le=1000)] = Field(default=20, description="Objects a page to ask for.")
    base_url: str = Field(default=NASA_URL, description="Where NeoWs is.")

    # Derivation
    partition_by: tuple[str, ...] = Field(default=(), description="DATASET:COLUMN to lay out by, beneath the snapshot.")
    within_au: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=0.2, description="Count close approaches strictly closer than this, in au."
    )
    orbiting_body: str | None = Field(
        default=None, description="Closest approach and aggregates over this body alone; None is any."
    )
    max_rejects: Annotated[int, Field(ge=0)] | None = Field(
        default=20, description="More unreadable objects than this end the run."
    )

    # Operation
    root: str = Field(default="data/", description="The lake: a folder or a URI such as s3://bucket/prefix.")
    api_key: SecretStr | None = Field(default=None, description="Sent in the X-Api-Key header and nowhere else.")
    concurrency: Annotated[int, Field(ge=1, le=64)] = Field(
        default=4, description="Requests under way at once, at most."
    )
    max_rate_per_s: Annotated[float, Field(ge=0.00001, allow_inf_nan=False)] | None = Field(
        default=None, description="Requests a second, at most; None is what the gateway allows."
    )
    max_missing_pages: Annotated[int, Field(ge=0)] | None = Field(
        default=0, description="Commit with so many pages missing, as recorded holes."
    )
    max_wait_s: _Seconds | None = Field(default=None, description="A longer wait for the quota pauses the run.")
    max_outage_s: _Seconds | None = Field(default=None, description="A longer outage ends the run.")
    probe_every_s: _MoreSeconds = Field(default=300.0, description="During an outage, one request in so long.")
    budget_requests: _Positive | None = Field(default=None, description="So many requests, then the run pauses.")
    max_generations: _Positive = Field(
        default=2, description="Read a catalogue that was seen to change so often, at most."
    )
    archive: bool = Field(default=True, description="Keep raw pages; without them a run cannot be resumed or rebuilt.")
    queue_neos: _Positive = Field(default=200, description="NEOs between decoding and each consumer, at most.")
    window_pages: _Positive = Field(
        default=16,
        description="Pages that wait in memory for the writing, at most; without the archive fetching waits too, "
        "with it only while reading them is what takes the time. Of an archive four times as many, without their JSON.",
    )
    workers: Annotated[int, Field(ge=0, le=16)] = Field(
        default=0, description="Processes that help decoding when pages have to wait for it, at most; 0 starts none."
    )
    request_timeout_s: _MoreSeconds = Field(default=60.0, description="For one request, all in.")
    connect_timeout_s: _MoreSeconds = Field(default=4.0, description="For one connection.")
    retry_budget_s: _MoreSeconds = Field(
        default=30.0, description="For so long new attempts at a page begin, in a row."
    )
    max_body_bytes: _Positive = Field(default=64 << 20, description="Larger bodies, decoded, are refused.")
    storage_timeout_s: _MoreSeconds = Field(default=120.0, description="For one call of the storage.")
    snapshot: str | None = Field(default=None, description="The snapshot's id; None is the UTC start.")
    fresh: bool = Field(default=False, description="Do not look for an unfinished snapshot to resume.")
    resume_within_s: _Seconds = Field(
        default=86_400.0, description="Older unfinished snapshots are named, not resumed."
    )

    @field_validator("snapshot")
    @classmethod
    def _snapshot_id(cls, value: str | None) -> str | None:
        if value is not None and (not SNAPSHOT_ID.fullmatch(value) or value == "latest"):
            raise ValueError(
                "a snapshot id has 1 to 64 letters, digits, '.', '_' or '-', begins with a letter or digit, "
                "and is not 'latest'"
            )
        return value

    @field_validator("orbiting_body")
    @classmethod
    def _body(cls, value: str | None) -> str | None:
        if value is None:
            return None
        for body in ORBITING_BODIES:
            if value.casefold() == body.casefold():
                return body
        if value.casefold() in _FULL_NAMES:
            return _FULL_NAMES[value.casefold()]
        raise ValueError(f"there is no orbiting body {value!r}; the source spells them {', '.join(ORBITING_BODIES)}")

    @field_validator("partition_by")
    @classmethod
    def _partitions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        datasets = []
        for entry in value:
            dataset, colon, column = entry.partition(":")
            if not (dataset and colon and column):
                raise ValueError(f"{entry!r} is not DATASET:COLUMN, e.g. close_approaches:orbiting_body")
            datasets.append(dataset)
        for dataset in datasets:
            if datasets.count(dataset) > 1:
                raise ValueError(f"{dataset} can be laid out by one column only")
        return value

    @property
    def partitions(self) -> dict[str, str]:
        """Dataset → the column it is laid out by."""
        return dict(entry.split(":", 1) for entry in self.partition_by)


def identity(settings: Settings, origin: str) -> dict[str, Any]:
    """What must be the same to resume."""
    return {"origin": origin, "page_size": settings.page_size, "limit": settings.limit}
