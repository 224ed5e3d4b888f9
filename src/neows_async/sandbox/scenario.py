"""Scenarios: which requests fail, how, and when. Only values, reproducible from a seed.

Whether a fault applies depends on the seed, the page and the attempt, not on the order of the requests. So a scenario
causes the same faults at any concurrency. A scenario file::

    seed = 7

    [gateway]
    hourly_limit = 100

    [latency]
    median_s = 2.0

    [[faults]]
    kind = "outage"        # an HTML 503 for every page,
    from_s = 60            # from a minute after the first request
    until_s = 180

    [[faults]]
    kind = "cut"           # the connection closes in the middle of the body
    rate = 0.05            # of 1 request in 20

    [[faults]]
    kind = "status"
    status = 502
    pages = [3, 4]
    attempts = [1, 2]      # the third attempt succeeds

    [[changes]]
    after_requests = 5     # a new object shifts the others
    add = 1
"""

from __future__ import annotations

import difflib
import math
import random
import tomllib
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, get_args

import msgspec

from neows_async.errors import SettingsError
from neows_async.sandbox.rate_limits import REFUSALS, GatewayRules

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

After: TypeAlias = Literal["request", "headers", "body"]
"""What the client receives before the fault: nothing, the headers, or half of the body."""


class _Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """A fault applies to the requests that meet all of its conditions.

    :param pages: page numbers, from 0; None is all
    :param attempts: which requests of a page, counted from 1; None is all
    :param rate: the share of these requests, 0 to 1
    :param from_s: seconds after the first request of the run; also ``until_s``
    :raises SettingsError: no request can meet a condition
    """

    pages: frozenset[int] | None = None
    attempts: frozenset[int] | None = None
    rate: float = 1.0
    from_s: float = 0.0
    until_s: float | None = None
    LEAST: ClassVar[dict[str, int]] = {"from_s": 0}

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise self._error("rate", "from 0 to 1", self.rate)
        for name, least in self.LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise self._error(name, f"{least} or more", value)
        if self.until_s is not None and not self.until_s > self.from_s:
            raise self._error("until_s", f"after from_s, {self.from_s:g}", self.until_s)
        if self.pages is not None and any(page < 0 for page in self.pages):
            raise self._error("pages", "0 or more; pages count from 0", min(self.pages))
        if self.attempts is not None and any(attempt < 1 for attempt in self.attempts):
            raise self._error("attempts", "1 or more; attempts count from 1", min(self.attempts))

    def _error(self, name: str, must: str, value: object) -> SettingsError:
        return SettingsError(f"fault {self.__struct_config__.tag!r}: {name} must be {must}, not {value!r}")

    def applies(self, page: int, attempt: int, elapsed_s: float, share: float) -> bool:
        """Whether the fault applies to this request; ``share`` is the request's random number in [0, 1)."""
        return (
            (self.pages is None or page in self.pages)
            and (self.attempts is None or attempt in self.attempts)
            and self.from_s <= elapsed_s
            and (self.until_s is None or elapsed_s < self.until_s)
            and share < self.rate
        )


class Outage(_Fault, frozen=True, kw_only=True, tag="outage"):
    """The hosting platform's HTML 503, with normal rate-limit headers: each retry costs quota."""


class Status(_Fault, frozen=True, kw_only=True, tag="status"):
    """An error status: in the ``backend``'s flat JSON, in the ``gateway``'s JSON, or as ``html``."""

    status: int = 500
    shape: Literal["backend", "gateway", "html"] = "backend"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 400 <= self.status <= 599:  # noqa: PLR2004 - HTTP's errors
            raise self._error("status", "from 400 to 599", self.status)


class OverRateLimit(_Fault, frozen=True, kw_only=True, tag="over_rate_limit"):
    """A 429 below the limit; the request is not counted. With ``retry_after_s`` None, the header is left out."""

    retry_after_s: int | None = 1


class Refused(_Fault, frozen=True, kw_only=True, tag="refused"):
    """A 403 with one of the gateway's codes, e.g. for a key that is disabled during a run."""

    code: str = "API_KEY_DISABLED"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.code not in REFUSALS:
            raise self._error("code", f"one of {', '.join(REFUSALS)}", self.code)


class Slow(_Fault, frozen=True, kw_only=True, tag="slow"):
    """The right response, ``delay_s`` seconds later."""

    delay_s: float
    LEAST: ClassVar[dict[str, int]] = {"from_s": 0, "delay_s": 0}


class Hang(_Fault, frozen=True, kw_only=True, tag="hang"):
    """The server sends nothing more, and the connection stays open."""

    after: After = "request"


class Cut(_Fault, frozen=True, kw_only=True, tag="cut"):
    """The server closes the connection before the response is complete."""

    after: After = "body"


class TruncatedGzip(_Fault, frozen=True, kw_only=True, tag="truncated_gzip"):
    """A complete response whose body is half of a gzip stream."""


class TruncatedJson(_Fault, frozen=True, kw_only=True, tag="truncated_json"):
    """A 200 with the first half of the JSON."""


class WrongPage(_Fault, frozen=True, kw_only=True, tag="wrong_page"):
    """A whole page with another number: ``number``, or the next one."""

    number: int | None = None
    LEAST: ClassVar[dict[str, int]] = {"from_s": 0, "number": 0}


class ShortPage(_Fault, frozen=True, kw_only=True, tag="short_page"):
    """The page without its last ``missing_neos`` objects, though its totals include them."""

    missing_neos: int = 1
    LEAST: ClassVar[dict[str, int]] = {"from_s": 0, "missing_neos": 1}


class WrongType(_Fault, frozen=True, kw_only=True, tag="wrong_type"):
    """The right body with another content type."""

    content_type: str = "text/plain"


class Html(_Fault, frozen=True, kw_only=True, tag="html"):
    """An HTML page with 200."""


class Redirect(_Fault, frozen=True, kw_only=True, tag="redirect"):
    """A redirect to another host."""

    location: str = "https://elsewhere.invalid/neo/rest/v1/neo/browse"
    status: Literal[301, 302, 303, 307, 308] = 302


class Endless(_Fault, frozen=True, kw_only=True, tag="endless"):
    """The right page, then endless white space, 16 KiB every ``interval_s`` seconds."""

    interval_s: float = 0.0
    LEAST: ClassVar[dict[str, int]] = {"from_s": 0, "interval_s": 0}


class Replace(_Fault, frozen=True, kw_only=True, tag="replace"):
    """Any body."""

    body: str
    status: int = 200
    content_type: str = "application/json;charset=UTF-8"


Fault: TypeAlias = (
    Outage
    | Status
    | OverRateLimit
    | Refused
    | Slow
    | Hang
    | Cut
    | TruncatedGzip
    | TruncatedJson
    | WrongPage
    | ShortPage
    | WrongType
    | Html
    | Redirect
    | Endless
    | Replace
)


class Latency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The time to a response: log-normal around ``median_s``; two thirds are within a factor of ``spread``.

    :raises SettingsError: a time below 0, or a spread below 1
    """

    median_s: float
    spread: float = 1.0
    most_s: float = 60.0

    def __post_init__(self) -> None:
        if not (self.median_s >= 0 and self.most_s >= 0 and self.spread >= 1):
            raise SettingsError("latency: median_s and most_s must be 0 or more, spread 1 or more")

    def of(self, one: float, two: float) -> float:
        """Seconds, from two random numbers in [0, 1)."""
        normal = math.sqrt(-2 * math.log(1 - one)) * math.cos(2 * math.pi * two)
        return float(min(self.most_s, self.median_s * self.spread**normal))


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change of the catalogue while clients read it.

    It is made after ``after_requests`` requests for pages, or ``after_s`` seconds after the first request. At
    ``position`` (from 0), it removes ``remove`` objects and adds ``add`` new ones; then it may ``shuffle`` all.

    :raises SettingsError: neither a time nor a count, or both; a number below 0
    """

    after_requests: int | None = None
    after_s: float | None = None
    position: int = 0
    remove: int = 0
    add: int = 0
    shuffle: bool = False

    def __post_init__(self) -> None:
        if (self.after_requests is None) == (self.after_s is None):
            raise SettingsError("change: give either after_requests or after_s")
        if min(self.position, self.remove, self.add) < 0:
            raise SettingsError("change: position, remove and add must be 0 or more")

    def is_due(self, requests: int, elapsed_s: float) -> bool:
        """Whether to make the change now."""
        if self.after_requests is not None:
            return requests >= self.after_requests
        return self.after_s is not None and elapsed_s >= self.after_s


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that goes wrong. If several faults apply to a request, the first one is used."""

    seed: int = 0
    gateway: GatewayRules = GatewayRules()
    latency: Latency | None = None
    faults: tuple[Fault, ...] = ()
    changes: tuple[Change, ...] = ()

    def fault_for(self, page: int, attempt: int, elapsed_s: float) -> Fault | None:
        """The fault for attempt ``attempt`` (from 1) at ``page``, ``elapsed_s`` seconds after the first request."""
        for place, fault in enumerate(self.faults):
            # A generator of its own for each request and fault: no draw depends on the order of the requests.
            if fault.applies(page, attempt, elapsed_s, self._draws(f"fault {place}", page, attempt).random()):
                return fault
        return None

    def latency_s(self, page: int, attempt: int) -> float:
        """Seconds before the response begins."""
        if self.latency is None:
            return 0.0
        draws = self._draws("latency", page, attempt)
        return self.latency.of(draws.random(), draws.random())

    def _draws(self, what: str, page: int, attempt: int) -> random.Random:
        return random.Random(f"{self.seed}:{what}:{page}:{attempt}")  # noqa: S311 - not a secret


_FAULTS = {str(kind.__struct_config__.tag): kind for kind in get_args(Fault)}


def read_scenario(file: Path) -> Scenario:
    """Read a scenario file; :mod:`neows_async.sandbox.scenario` shows its format.

    :raises SettingsError: the file cannot be read, is not TOML, or has unknown names or invalid values
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"--scenario {file} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    try:
        return parse_scenario(text)
    except SettingsError as exc:
        raise SettingsError(f"--scenario {file}: {exc}") from exc


def parse_scenario(text: str) -> Scenario:
    """Parse the TOML text of a scenario."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(f"not TOML: {exc}") from exc
    _check_names(table)
    try:
        return msgspec.convert(table, Scenario)
    except msgspec.ValidationError as exc:
        raise SettingsError(str(exc).replace("`$.", "`")) from exc


def _check_names(table: dict[str, Any]) -> None:
    """Check every name, to suggest the nearest one. msgspec would only report an unknown field."""
    _check_table("", table, Scenario)
    for name, kind in (("gateway", GatewayRules), ("latency", Latency)):
        if isinstance(table.get(name), dict):
            _check_table(name, table[name], kind)
    for place, change in enumerate(_tables(table, "changes")):
        _check_table(f"changes[{place}]", change, Change)
    for place, fault in enumerate(_tables(table, "faults")):
        tag = fault.get("kind")
        if tag is None:
            raise SettingsError(f"faults[{place}] has no kind; there are {', '.join(_FAULTS)}")
        if tag not in _FAULTS:
            raise SettingsError(f"faults[{place}]: there is no kind {tag!r}; {_nearest(str(tag), _FAULTS)}")
        _check_table(f"faults[{place}]", {name: fault[name] for name in fault if name != "kind"}, _FAULTS[tag])


def _tables(table: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = table.get(name, [])
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _check_table(where: str, table: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    for name in table:
        if name not in kind.__struct_fields__:
            place = f"{where}: " if where else ""
            raise SettingsError(f"{place}there is no {name!r}; {_nearest(name, kind.__struct_fields__)}")


def _nearest(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(known)}"
