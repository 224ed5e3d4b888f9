"""A gate's pacing: alone or, with a ledger, together with all others who use the same key."""

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

_FORMAT: Final = 1
_KEPT_S: Final = 2 * 86_400.0  # what was counted longer ago weighs nothing in any limit
_FOREIGN_S: Final = 2 * 3_600.0
_AHEAD_S: Final = 120.0
_SEEN_S: Final = 150.0  # who waits looks at the ledger more often than that
_ARRIVALS: Final = 500  # of the last seconds; the largest burst limit is 250
# Nobody's run can use up so many an hour, and asking the others would take longer than asking the source.
_PLENTY: Final = 100_000
_GRACE_S: Final = 0.4


class SharedQuota:
    """Takes turns under the quota, one decision at a time.

    With a ledger each decision is made on what all who share it know: read, decided and written
    while nobody else does. When the ledger fails, it goes on alone, and says so once.

    :param pacing: what decides; with a ledger, by its rules
    :param clock: UTC, seconds since 1970; the same for all who share the ledger
    """

    def __init__(
        self, pacing: QuotaModel, ledger: QuotaStore | None, *, clock: Callable[[], float], listener: Listener
    ) -> None:
        self.pacing: QuotaModel = pacing
        """As of the last decision."""
        self._ledger = ledger
        self._clock = clock
        self._listener = listener
        self._untold: list[Callable[[QuotaModel], None]] = []
        self._one_at_a_time = anyio.Lock()

    @property
    def shared(self) -> bool:
        """Whether others may change what is known at any time."""
        return self._ledger is not None

    async def take(self, *, wanted: float = math.inf, only_look: bool = False) -> tuple[float, int | None]:
        """Seconds until the next request may go out, and its ticket if that is now: then it counts as sent.

        :param wanted: so many more, this one among them, are all that is needed
        :param only_look: take none
        """

        def decide(pacing: QuotaModel) -> tuple[float, int | None]:
            now_s = self._clock()
            wait_s = pacing.next_slot_s(now_s, wanted)
            return wait_s, None if wait_s > 0 or only_look else pacing.sent(now_s)

        return await self._together(decide)

    def answered(self, ticket: int, rate_limit: RateLimit | None) -> None:
        """See :meth:`Pacing.answered <neows_async.pacing.Pacing.answered>`."""
        now_s = self._clock()
        self._note(lambda pacing: pacing.answered(ticket, now_s, rate_limit))

    def limited(self, ticket: int, retry_after_s: float | None) -> None:
        """See :meth:`Pacing.limited <neows_async.pacing.Pacing.limited>`."""
        now_s = self._clock()
        self._note(lambda pacing: pacing.limited(ticket, now_s, retry_after_s))

    def lost(self, ticket: int) -> None:
        """See :meth:`Pacing.lost <neows_async.pacing.Pacing.lost>`."""
        now_s = self._clock()
        self._note(lambda pacing: pacing.lost(ticket, now_s))

    async def settle(self) -> None:
        """Let the others know what the answers told, also when cancelled."""
        if self._ledger is None or not self._untold:
            return
        with anyio.move_on_after(_GRACE_S, shield=True):
            await self._together(lambda _: None)

    def _note(self, note: Callable[[QuotaModel], None]) -> None:
        note(self.pacing)
        if self._ledger is not None:
            self._untold.append(note)

    async def _together(self, act: Callable[[QuotaModel], _T]) -> _T:
        if self._ledger is None:
            return act(self.pacing)
        async with self._one_at_a_time:
            return await self._with_others(act)

    async def _with_others(self, act: Callable[[QuotaModel], _T]) -> _T:
        ledger = self._ledger
        if ledger is None:  # since the decision before this one
            return act(self.pacing)
        rules, own, notes = self.pacing, self.pacing.state(), tuple(self._untold)
        done: list[tuple[QuotaModel, _T]] = []

        def change(text: str | None) -> str:
            kept = _read(text, self._clock(), ledger) or _Kept(own)
            try:
                pacing = rules.resumed(kept.pacing)
                for ticket in kept.orphans(ledger):
                    pacing.lost(ticket, self._clock())
                for note in notes:
                    note(pacing)
                done.append((pacing, act(pacing)))
                return kept.after(pacing.state(), self._clock(), ledger)
            except Exception as exc:
                # What another process wrote must not end this one.
                raise StorageError(f"what was kept cannot be used: {type(exc).__name__}: {exc}") from exc

        try:
            await ledger.change(change)
        except StorageError as exc:
            self._alone()
            self._listener(QuotaSharingFailed(str(exc)))
            return act(self.pacing)
        self.pacing, outcome = done[-1]
        del self._untold[: len(notes)]
        for note in self._untold:
            note(self.pacing)
        if (self.pacing.limit or 0) >= _PLENTY:
            self._alone()
        return outcome

    def _alone(self) -> None:
        self._ledger = None
        self._untold.clear()


@dataclass(frozen=True, slots=True)
class _Kept:
    """What lies in the ledger.

    :param owners: whose request each ticket under way is
    :param members: owner → UTC, when it was last here
    """

    pacing: QuotaState
    owners: dict[int, str] = field(default_factory=dict)
    members: dict[str, float] = field(default_factory=dict)

    def orphans(self, ledger: QuotaStore) -> list[int]:
        """Tickets that nobody will ever tell of."""
        gone = {owner for owner in set(self.owners.values()) if ledger.is_gone(owner)}
        return [ticket for ticket, owner in self.owners.items() if owner in gone]

    def after(self, pacing: QuotaState, now_s: float, ledger: QuotaStore) -> str:
        """What lies there next."""
        tickets = [ticket for ticket, _ in pacing.under_way]
        members = {owner: seen_s for owner, seen_s in self.members.items() if now_s - seen_s < _SEEN_S}
        return json.dumps(
            {
                "format": _FORMAT,
                "written_s": now_s,
                "owners": {ticket: self.owners.get(ticket, ledger.owner) for ticket in tickets},
                "members": members | {ledger.owner: now_s},
                "pacing": replace(pacing, arrived_s=pacing.arrived_s[-_ARRIVALS:]).as_json(),
            },
            separators=(",", ":"),
        )


def _read(text: str | None, now_s: float, ledger: QuotaStore) -> _Kept | None:
    """What was kept, if it still means something.

    :raises StorageError: another version of the program uses it now, or it is damaged
    """
    if text is None:
        return None
    try:
        plain: dict[str, Any] = json.loads(text)
        age_s = now_s - float(plain["written_s"])
        if not -_AHEAD_S <= age_s <= _KEPT_S or (plain["format"] != _FORMAT and age_s > _FOREIGN_S):
            return None
        if plain["format"] != _FORMAT:
            raise StorageError("another version of the program uses it; give both the same")
        kept = _Kept(
            QuotaState.from_json(plain["pacing"]),
            {int(ticket): str(owner) for ticket, owner in plain["owners"].items()},
            {str(owner): float(seen_s) for owner, seen_s in plain["members"].items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise StorageError(f"it is damaged ({type(exc).__name__}: {exc}); remove it") from exc
    here = (owner for owner, seen_s in kept.members.items() if now_s - seen_s < _SEEN_S and not ledger.is_gone(owner))
    return kept if ledger.lasting or any(here) else None
