"""A quota model that a gate uses alone or, with a store, together with every other run that has the same key."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from neows_async.errors import StorageError
from neows_async.pacing.state import QuotaState
from neows_async.telemetry.events import QuotaSharingFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from neows_async.errors import RateLimit
    from neows_async.pacing.quota import QuotaModel
    from neows_async.pacing.quota_store import QuotaStore
    from neows_async.telemetry.events import Listener

_T = TypeVar("_T")

_FORMAT: Final = 2
_VALID_S: Final = 2 * 86_400.0  # older counts have no weight in any limit
_OTHER_FORMAT_S: Final = 2 * 3_600.0
_CLOCK_AHEAD_S: Final = 120.0
_MEMBER_S: Final = 150.0  # a waiting run reads the store more often than that
_ARRIVALS: Final = 500  # of the last seconds; the largest burst limit is 250
# No run can use this many requests an hour, and the store would cost more time than a request.
_UNLIMITED: Final = 100_000
_FLUSH_S: Final = 0.4


class SharedQuota:
    """Takes slots of the quota, one decision at a time.

    With a store, each decision reads what all runs know, decides, and writes the result, while no other run reads or
    writes. If the store fails, this run continues alone and reports it once.

    :param model: decides; with a store, by its rules and the stored state
    :param clock: UTC, seconds since 1970; the same for all runs that share the store
    """

    def __init__(
        self, model: QuotaModel, store: QuotaStore | None, *, clock: Callable[[], float], listener: Listener
    ) -> None:
        self._model = model
        self._store = store
        self._clock = clock
        self._listener = listener
        self._unwritten: list[Callable[[QuotaModel], None]] = []
        self._one_at_a_time = anyio.Lock()

    @property
    def model(self) -> QuotaModel:
        """The model as of the last decision, with the outcomes of our own requests since then."""
        return self._model

    @property
    def shared(self) -> bool:
        """Whether other runs may change the state at any time."""
        return self._store is not None

    async def take(self, *, wanted: float = math.inf) -> tuple[float, int | None]:
        """Take a slot: return 0 and its ticket, or the seconds until there is one and None.

        A ticket counts as a request in flight from then on.

        :param wanted: requests still to be sent, with this one
        """

        def decide(model: QuotaModel) -> tuple[float, int | None]:
            now_s = self._clock()
            wait_s = model.next_slot_s(now_s, wanted)
            # The request is recorded before it is sent. After a crash between the two the quota has one slot less; in
            # the other order it would have one too many.
            return wait_s, None if wait_s > 0 else model.sent(now_s)

        return await self._with_latest_state(decide)

    async def next_slot_s(self, *, wanted: float = math.inf) -> float:
        """Return the seconds until :meth:`take` returns a ticket, and take none."""
        return await self._with_latest_state(lambda model: model.next_slot_s(self._clock(), wanted))

    def response_received(self, ticket: int, rate_limit: RateLimit | None) -> None:
        """See :meth:`QuotaModel.response_received <neows_async.pacing.quota.QuotaModel.response_received>`."""
        now_s = self._clock()
        self._record(lambda model: model.response_received(ticket, now_s, rate_limit))

    def rate_limited(self, ticket: int, retry_after_s: float | None) -> None:
        """See :meth:`QuotaModel.rate_limited <neows_async.pacing.quota.QuotaModel.rate_limited>`."""
        now_s = self._clock()
        self._record(lambda model: model.rate_limited(ticket, now_s, retry_after_s))

    def no_response(self, ticket: int) -> None:
        """See :meth:`QuotaModel.no_response <neows_async.pacing.quota.QuotaModel.no_response>`."""
        now_s = self._clock()
        self._record(lambda model: model.no_response(ticket, now_s))

    async def flush(self) -> None:
        """Write the outcomes of our requests to the store, also during a cancellation."""
        if self._store is None or not self._unwritten:
            return
        # Bounded: a lost flush costs other runs a wait until the ticket counts as lost, and no refusal.
        with anyio.move_on_after(_FLUSH_S, shield=True):
            await self._with_latest_state(lambda _: None)

    def _record(self, outcome: Callable[[QuotaModel], None]) -> None:
        # Applied at once, and again to the stored state at the next decision: no outcome waits for the store.
        outcome(self._model)
        if self._store is not None:
            self._unwritten.append(outcome)

    async def _with_latest_state(self, act: Callable[[QuotaModel], _T]) -> _T:
        if self._store is None:
            return act(self._model)
        # One decision of this run at a time; the store's own lock orders the runs.
        async with self._one_at_a_time:
            return await self._in_store(act)

    async def _in_store(self, act: Callable[[QuotaModel], _T]) -> _T:
        store = self._store
        if store is None:  # the decision before this one failed
            return act(self._model)
        # Copied: the change runs in a thread, while responses arrive in the event loop.
        before, outcomes = self._model, tuple(self._unwritten)
        done: list[tuple[QuotaModel, _T]] = []

        def change(text: str | None) -> str:
            stored = _read(text, self._clock(), store) or _Stored(before.state())
            try:
                model = before.with_state(stored.quota)
                # A killed run cannot report. Its tickets count as lost: possibly counted, no longer in flight.
                for ticket in stored.orphans(store):
                    model.no_response(ticket, self._clock())
                # Our outcomes first, so that the decision below knows them.
                for outcome in outcomes:
                    outcome(model)
                done.append((model, act(model)))
                return stored.updated(model.state(), self._clock(), store)
            except Exception as exc:
                # Another process wrote the state: whatever is wrong with it must not end this run.
                raise StorageError(f"the stored quota cannot be used: {type(exc).__name__}: {exc}") from exc

        try:
            await store.change(change)
        except StorageError as exc:
            # Alone from here on: a run must not stop because a file on this machine is broken.
            self._leave_store()
            self._listener(QuotaSharingFailed(str(exc)))
            return act(self._model)
        self._model, result = done[-1]
        # Responses may have arrived while the store was busy: the new model does not have them yet.
        # Only those that the change has written.
        del self._unwritten[: len(outcomes)]
        for outcome in self._unwritten:
            outcome(self._model)
        if (self._model.limit or 0) >= _UNLIMITED:
            self._leave_store()
        return result

    def _leave_store(self) -> None:
        self._store = None
        self._unwritten.clear()


@dataclass(frozen=True, slots=True)
class _Stored:
    """The content of the store.

    :param owners: ticket in flight → the process that sent the request
    :param members: process → UTC, when it last used the store
    """

    quota: QuotaState
    owners: dict[int, str] = field(default_factory=dict)
    members: dict[str, float] = field(default_factory=dict)

    def orphans(self, store: QuotaStore) -> list[int]:
        """Return the tickets of dead processes: no outcome will be recorded for them."""
        gone = {owner for owner in set(self.owners.values()) if store.is_gone(owner)}
        return [ticket for ticket, owner in self.owners.items() if owner in gone]

    def updated(self, quota: QuotaState, now_s: float, store: QuotaStore) -> str:
        """Return the next content."""
        tickets = [ticket for ticket, _ in quota.in_flight]
        members = {owner: seen_s for owner, seen_s in self.members.items() if now_s - seen_s < _MEMBER_S}
        return json.dumps(
            {
                "format": _FORMAT,
                "written_s": now_s,
                # A ticket that is new is ours: nobody else wrote since we read.
                "owners": {ticket: self.owners.get(ticket, store.owner) for ticket in tickets},
                "members": members | {store.owner: now_s},
                "quota": replace(quota, arrived_s=quota.arrived_s[-_ARRIVALS:]).as_json(),
            },
            separators=(",", ":"),
        )


def _read(text: str | None, now_s: float, store: QuotaStore) -> _Stored | None:
    """Return the stored content; None if it is out of date.

    :raises StorageError: another version of the program uses the store now, or the content is damaged
    """
    if text is None:
        return None
    try:
        plain: dict[str, Any] = json.loads(text)
        age_s = now_s - float(plain["written_s"])
        if not -_CLOCK_AHEAD_S <= age_s <= _VALID_S or (plain["format"] != _FORMAT and age_s > _OTHER_FORMAT_S):
            return None
        if plain["format"] != _FORMAT:
            raise StorageError("another version of the program uses it; use one version")
        stored = _Stored(
            QuotaState.from_json(plain["quota"]),
            {int(ticket): str(owner) for ticket, owner in plain["owners"].items()},
            {str(owner): float(seen_s) for owner, seen_s in plain["members"].items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise StorageError(f"it is damaged ({type(exc).__name__}: {exc}); remove it") from exc
    alive = (
        owner for owner, seen_s in stored.members.items() if now_s - seen_s < _MEMBER_S and not store.is_gone(owner)
    )
    # For a source that forgets with its process, as the sandbox, counts of dead runs have no meaning.
    return stored if store.lasting or any(alive) else None
