from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from neows_async.pipeline.scheduler import FetchSchedule


def everything(agenda: FetchSchedule) -> list[int]:
    return list(iter(agenda.next_page, None))


def test_pages_come_in_order_and_those_that_are_in_are_not_asked_for() -> None:
    agenda = FetchSchedule(6, stored=frozenset({0, 3}))
    assert everything(agenda) == [1, 2, 4, 5]
    assert [agenda.is_in(number) for number in range(6)] == [True, False, False, True, False, False]
    agenda.arrived(1)
    assert agenda.is_in(1)


def test_a_page_that_fails_comes_again_when_all_others_have_been_asked_for() -> None:
    agenda = FetchSchedule(4)
    assert agenda.next_page() == 0
    assert agenda.retry_later(0)
    assert everything(agenda) == [1, 2, 3, 0]
    assert not agenda.retry_later(0)
    agenda.give_up(0, "why")
    assert agenda.missing == {0: "why"}
    assert everything(agenda) == []


def test_the_window_bounds_how_far_ahead_of_the_reader_pages_are_asked_for() -> None:
    agenda = FetchSchedule(9, window=3)
    assert everything(agenda) == [0, 1, 2]
    agenda.arrived(0)
    agenda.reading(1)
    assert not agenda.is_in(0)
    assert everything(agenda) == [3]


def test_a_window_that_waits_for_a_late_page_lets_it_pass() -> None:
    agenda = FetchSchedule(9, window=2)
    assert everything(agenda) == [0, 1]
    assert agenda.retry_later(0)
    assert everything(agenda) == [0]


def test_a_page_that_cannot_be_read_any_more_comes_first() -> None:
    agenda = FetchSchedule(9, stored=frozenset({0, 1}), window=3)
    assert everything(agenda) == [2]
    agenda.damaged(0)
    assert not agenda.is_in(0)
    assert agenda.next_page() == 0


@given(st.integers(0, 30), st.frozensets(st.integers(0, 30)), st.integers(1, 5))
def test_with_a_reader_who_follows_every_page_is_asked_for_once(pages: int, kept: frozenset[int], window: int) -> None:
    agenda = FetchSchedule(pages, stored=kept, window=window)
    asked = []
    for number in range(pages):
        agenda.reading(number)
        while (page := agenda.next_page()) is not None:
            assert page < number + window
            asked.append(page)
            agenda.arrived(page)
        assert agenda.is_in(number)
    assert asked == [number for number in range(pages) if number not in kept]


class AgendaMachine(RuleBasedStateMachine):
    """Fetchers and a reader doing anything they may, in any order."""

    @initialize(pages=st.integers(1, 12), window=st.none() | st.integers(1, 4), kept=st.frozensets(st.integers(0, 11)))
    def begin(self, pages: int, window: int | None, kept: frozenset[int]) -> None:
        self.pages, self.window = pages, window
        self.kept = frozenset(number for number in kept if number < pages)
        self.agenda = FetchSchedule(pages, stored=self.kept, window=window)
        self.under_way: set[int] = set()
        self.arrived = set(self.kept)
        self.failed: set[int] = set()
        self.given_up: set[int] = set()
        self.reader = 0

    @rule()
    def ask(self) -> None:
        number = self.agenda.next_page()
        if number is None:
            return
        assert number not in self.under_way | self.arrived | self.given_up
        assert self.window is None or number < self.reader + self.window
        self.under_way.add(number)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def land(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.under_way)))
        self.under_way.remove(number)
        self.arrived.add(number)
        self.agenda.arrived(number)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.under_way)))
        self.under_way.remove(number)
        again = self.agenda.retry_later(number)
        assert again is (number not in self.failed)
        self.failed.add(number)
        if not again:
            self.agenda.give_up(number, "failed twice")
            self.given_up.add(number)

    @precondition(lambda self: self.reader < self.pages and self.reader in self.arrived | self.given_up)
    @rule()
    def read_on(self) -> None:
        self.reader += 1
        self.agenda.reading(self.reader)

    @precondition(lambda self: self.reader < self.pages and self.reader in self.arrived)
    @rule()
    def damage(self) -> None:
        self.arrived.remove(self.reader)
        self.agenda.damaged(self.reader)

    @invariant()
    def the_reader_is_never_stuck(self) -> None:
        waits_for = self.reader
        if waits_for < self.pages and waits_for not in self.arrived | self.given_up:
            assert not self.agenda.is_in(waits_for)
            # It is under way, or it comes: nothing else can stand before it for ever.
            assert self.under_way or self.agenda._todo or self.agenda._late

    def teardown(self) -> None:
        """From wherever they are, all of it ends when nothing fails any more."""
        while self.reader < self.pages:
            if self.reader in self.arrived | self.given_up:
                self.reader += 1
                self.agenda.reading(self.reader)
                continue
            while (number := self.agenda.next_page()) is not None:
                self.under_way.add(number)
            assert self.under_way
            for number in sorted(self.under_way):
                self.arrived.add(number)
                self.agenda.arrived(number)
            self.under_way.clear()


TestAnyOrder = AgendaMachine.TestCase
