"""All settings of a run: one frozen, validated value, with units in its names.

A field is the only description of its setting: type, bounds, default, help text, :class:`Kind`, and the
:class:`Option` by which the command line knows it. Options, messages and receipts are made from the fields.

The library reads no environment and no file; :mod:`neows_async.cli.config` does that.

Importing this module imports pydantic, about 0.1 s. The command line therefore imports it with a command's own
module: ``neows-async --help`` and ``--version`` run without it.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

NASA_URL: Final = "https://api.nasa.gov"
DEMO_KEY: Final = "DEMO_KEY"
"""NASA's public key: 30 requests an hour and 50 a day from one address, enough for 200 objects."""
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

_FULL_NAMES: Final = {"mercury": "Merc", "jupiter": "Juptr", "saturn": "Satrn", "uranus": "Urnus", "neptune": "Neptn"}


class Kind(Enum):
    """What a setting influences."""

    IDENTITY = "identity"
    """Must be the same to resume an unfinished snapshot."""
    DERIVATION = "derivation"
    """May change on resume: datasets are made from the raw pages. Recorded in the receipt."""
    OPERATION = "operation"
    """Never changes what is written. Recorded in the receipt."""
    UNRECORDED = "unrecorded"
    """Never changes what is written, and is not in the receipt: place, key, waits, time limits."""


@dataclass(frozen=True, slots=True)
class Option:
    """How the command line names a setting. The variable and the key in the TOML file follow from the flag.

    :param flag: ``--max-wait``; ``--no-archive`` turns ``archive`` off
    :param metavar: the value's placeholder in ``--help``; none for a switch
    :param unit: ``s`` for a duration, which people may also write as ``15m``
    :param default: what ``--help`` shows, if the field's default is not the whole truth
    """

    flag: str
    metavar: str | None = None
    unit: str = ""
    default: str = ""


_Positive = Annotated[int, Field(ge=1)]
# A century. A longer time is a slip of the pen, and its end is beyond what a date can hold.
_LONGEST_S: Final = 36_500 * 86_400
_Seconds = Annotated[float, Field(ge=0, le=_LONGEST_S, allow_inf_nan=False)]
_PositiveSeconds = Annotated[float, Field(gt=0, le=_LONGEST_S, allow_inf_nan=False)]


class Settings(BaseModel):
    """One run's settings. ``None`` means no limit, never 0 or -1."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=False)

    DERIVATION: ClassVar[tuple[str, ...]]
    """The names of the settings of that kind, in the order of the fields."""
    OPERATION: ClassVar[tuple[str, ...]]
    """As :attr:`DERIVATION`."""

    # -- identity
    limit: Annotated[_Positive | None, Kind.IDENTITY, Option("--limit", "N")] = Field(
        default=200, description="Fetch the first N objects of the catalogue."
    )
    page_size: Annotated[int, Field(ge=1, le=1000), Kind.IDENTITY, Option("--page-size", "N")] = Field(
        default=20, description="Request N objects per page."
    )
    base_url: Annotated[str, Kind.IDENTITY, Option("--base-url", "URL")] = Field(
        default=NASA_URL, description="The base URL of NeoWs."
    )

    # -- derivation
    partition_by: Annotated[tuple[str, ...], Kind.DERIVATION, Option("--partition-by", "DATASET:COLUMN")] = Field(
        default=(), description="Partition a dataset by a column. Can be repeated, once per dataset."
    )
    within_au: Annotated[float, Field(gt=0, allow_inf_nan=False), Kind.DERIVATION, Option("--within-au", "X")] = Field(
        default=0.2, description="Count close approaches strictly closer than X au."
    )
    orbiting_body: Annotated[str | None, Kind.DERIVATION, Option("--orbiting-body", "NAME", default="any")] = Field(
        default=None,
        description="Use approaches to this body only, e.g. Earth, for the closest approach and the aggregates.",
    )
    max_rejects: Annotated[Annotated[int, Field(ge=0)] | None, Kind.DERIVATION, Option("--max-rejects", "N")] = Field(
        default=20, description="Stop if more than N objects are unreadable."
    )

    # -- operation: where to store, and with which key
    root: Annotated[str, Kind.UNRECORDED, Option("--root", "URI", default="data/; sandbox: data/sandbox/")] = Field(
        default="data/", description="The lake: a folder, or s3://bucket/prefix."
    )
    api_key: Annotated[SecretStr | None, Kind.UNRECORDED] = Field(
        default=None, description="NASA's API key. Sent in the X-Api-Key header and nowhere else."
    )

    # -- operation: requests, quota and waiting
    concurrency: Annotated[
        int, Field(ge=1, le=64), Kind.OPERATION, Option("--concurrency", "N", default="4; archive: 8")
    ] = Field(default=4, description="Run at most N requests in parallel.")
    max_rate_per_s: Annotated[
        Annotated[float, Field(ge=0.00001, allow_inf_nan=False)] | None,
        Kind.OPERATION,
        Option("--max-rate", "R", default="the burst limits of api.nasa.gov; none for other hosts"),
    ] = Field(default=None, description="Send at most R requests per second.")
    max_missing_pages: Annotated[
        Annotated[int, Field(ge=0)] | None, Kind.OPERATION, Option("--max-missing-pages", "N")
    ] = Field(default=0, description="Commit even if up to N pages could not be read. The receipt lists them.")
    max_wait_s: Annotated[_Seconds | None, Kind.UNRECORDED, Option("--max-wait", "TIME", unit="s")] = Field(
        default=None, description="Pause the run if the quota requires a longer wait."
    )
    max_outage_s: Annotated[_Seconds | None, Kind.UNRECORDED, Option("--max-outage", "TIME", unit="s")] = Field(
        default=None, description="End the run if the source is down for longer."
    )
    probe_every_s: Annotated[_PositiveSeconds, Kind.UNRECORDED, Option("--probe-every", "TIME", unit="s")] = Field(
        default=300.0, description="During an outage, send one request at this interval."
    )
    budget_requests: Annotated[_Positive | None, Kind.UNRECORDED, Option("--budget", "N")] = Field(
        default=None, description="Pause the run after N requests."
    )
    max_generations: Annotated[_Positive, Kind.UNRECORDED, Option("--max-generations", "N")] = Field(
        default=2, description="If the catalogue changes its size during the run, read it up to N times."
    )

    # -- operation: memory, processes and time limits
    archive: Annotated[bool, Kind.OPERATION, Option("--no-archive")] = Field(
        default=True, description="Store raw pages. Without them, a run cannot be resumed or rebuilt."
    )
    queue_neos: Annotated[_Positive, Kind.OPERATION] = Field(
        default=200, description="Queue at most N objects between decoding and each consumer."
    )
    window_pages: Annotated[_Positive, Kind.UNRECORDED] = Field(
        default=16,
        description="Buffer at most N pages in memory before they are written, four times as many from an archive. "
        "Without raw pages, fetching stops while the buffer is full.",
    )
    workers: Annotated[
        int,
        Field(ge=0, le=16),
        Kind.OPERATION,
        Option("--workers", "N", default="one fewer than the processors, 2 at most"),
    ] = Field(default=0, description="Decode in up to N more processes when decoding falls behind. 0 starts none.")
    request_timeout_s: Annotated[_PositiveSeconds, Kind.UNRECORDED, Option("--request-timeout", "TIME", unit="s")] = (
        Field(default=60.0, description="The time limit for one request with its response.")
    )
    connect_timeout_s: Annotated[_PositiveSeconds, Kind.UNRECORDED] = Field(
        default=4.0, description="The time limit for opening a connection."
    )
    retry_budget_s: Annotated[_PositiveSeconds, Kind.OPERATION, Option("--retry-budget", "TIME", unit="s")] = Field(
        default=30.0, description="Keep retrying a page for this long."
    )
    max_body_bytes: Annotated[_Positive, Kind.UNRECORDED, Option("--max-body-bytes", "N")] = Field(
        default=64 << 20, description="Reject responses larger than N bytes, as sent or decompressed."
    )
    storage_timeout_s: Annotated[_PositiveSeconds, Kind.UNRECORDED] = Field(
        default=120.0, description="The time limit for one call of the storage."
    )

    # -- operation: which snapshot
    snapshot: Annotated[str | None, Kind.UNRECORDED, Option("--snapshot", "ID", default="the UTC start")] = Field(
        default=None, description="The snapshot's id, e.g. a scheduler's logical date."
    )
    fresh: Annotated[bool, Kind.UNRECORDED, Option("--fresh")] = Field(
        default=False, description="Start a new snapshot, even if an unfinished one could be resumed."
    )
    resume_within_s: Annotated[_Seconds, Kind.UNRECORDED, Option("--resume-within", "TIME", unit="s")] = Field(
        default=86_400.0, description="Resume an unfinished snapshot only if it is not older than this."
    )

    @classmethod
    def option(cls, name: str) -> Option | None:
        """The option of the field ``name``; None for a field, or a name, without one."""
        field = cls.model_fields.get(name)
        return next((entry for entry in field.metadata if isinstance(entry, Option)), None) if field else None

    @field_validator("snapshot")
    @classmethod
    def _snapshot_id(cls, value: str | None) -> str | None:
        if value is not None and (not SNAPSHOT_ID.fullmatch(value) or value == "latest"):
            raise ValueError(
                "a snapshot id has 1 to 64 letters, digits, '.', '_' or '-', starts with a letter or digit, "
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
        raise ValueError(f"there is no orbiting body {value!r}; NASA's names are {', '.join(ORBITING_BODIES)}")

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
                raise ValueError(f"{dataset} can be partitioned by one column only")
        return value

    @property
    def partitions(self) -> dict[str, str]:
        """The partition column by dataset."""
        return dict(entry.split(":", 1) for entry in self.partition_by)


def _of_kind(kind: Kind) -> tuple[str, ...]:
    return tuple(name for name, field in Settings.model_fields.items() if kind in field.metadata)


Settings.DERIVATION = _of_kind(Kind.DERIVATION)
Settings.OPERATION = _of_kind(Kind.OPERATION)


def identity(settings: Settings, origin: str) -> dict[str, Any]:
    """What must be the same to resume an unfinished snapshot.

    :param origin: the source's name for what it reads, e.g. the URL
    """
    return {"origin": origin, "page_size": settings.page_size, "limit": settings.limit}


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine, by its address or as ``localhost``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
