from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from neows_async.pipeline.scheduler import FetchSchedule


def everything(schedule: FetchSchedule) -> list[int]:
    return list(iter(schedule.next_page, None))


def test_pages_are_fetched_in_order_and_stored_pages_are_not() -> None:
    schedule = FetchSchedule(6, stored=frozenset({0, 3}))
    assert everything(schedule) == [1, 2, 4, 5]
    assert [schedule.is_in(number) for number in range(6)] == [True, False, False, True, False, False]
    schedule.arrived(1)
    assert schedule.is_in(1)


def test_a_page_that_fails_is_fetched_again_after_all_others() -> None:
    schedule = FetchSchedule(4)
    assert schedule.next_page() == 0
    assert schedule.retry_later(0)
    assert everything(schedule) == [1, 2, 3, 0]
    assert not schedule.retry_later(0)
    schedule.give_up(0, "why")
    assert schedule.missing == {0: "why"}
    assert everything(schedule) == []


def test_the_window_limits_how_far_ahead_of_the_reader_pages_are_fetched() -> None:
    schedule = FetchSchedule(9, window=3)
    assert everything(schedule) == [0, 1, 2]
    schedule.arrived(0)
    schedule.reading(1)
    assert not schedule.is_in(0)
    assert everything(schedule) == [3]


def test_a_late_page_is_fetched_when_the_window_is_full() -> None:
    schedule = FetchSchedule(9, window=2)
    assert everything(schedule) == [0, 1]
    assert schedule.retry_later(0)
    assert everything(schedule) == [0]


def test_a_damaged_page_is_fetched_next() -> None:
    schedule = FetchSchedule(9, stored=frozenset({0, 1}), window=3)
    assert everything(schedule) == [2]
    schedule.damaged(0)
    assert not schedule.is_in(0)
    assert schedule.next_page() == 0


@given(st.integers(0, 30), st.frozensets(st.integers(0, 30)), st.integers(1, 5))
def test_each_page_is_fetched_once_for_a_reader_that_keeps_up(pages: int, stored: frozenset[int], window: int) -> None:
    schedule = FetchSchedule(pages, stored=stored, window=window)
    asked = []
    for number in range(pages):
        schedule.reading(number)
        while (page := schedule.next_page()) is not None:
            assert page < number + window
            asked.append(page)
            schedule.arrived(page)
        assert schedule.is_in(number)
    assert asked == [number for number in range(pages) if number not in stored]


class ScheduleMachine(RuleBasedStateMachine):
    """Fetchers and a reader do what their protocol allows, in any order."""

    @initialize(
        pages=st.integers(1, 12), window=st.none() | st.integers(1, 4), stored=st.frozensets(st.integers(0, 11))
    )
    def begin(self, pages: int, window: int | None, stored: frozenset[int]) -> None:
        self.pages, self.window = pages, window
        self.stored = frozenset(number for number in stored if number < pages)
        self.schedule = FetchSchedule(pages, stored=self.stored, window=window)
        self.in_flight: set[int] = set()
        self.arrived = set(self.stored)
        self.failed: set[int] = set()
        self.given_up: set[int] = set()
        self.reader = 0

    @rule()
    def ask(self) -> None:
        number = self.schedule.next_page()
        if number is None:
            return
        assert number not in self.in_flight | self.arrived | self.given_up
        assert self.window is None or number < self.reader + self.window
        self.in_flight.add(number)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def land(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.in_flight)))
        self.in_flight.remove(number)
        self.arrived.add(number)
        self.schedule.arrived(number)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.in_flight)))
        self.in_flight.remove(number)
        again = self.schedule.retry_later(number)
        assert again is (number not in self.failed)
        self.failed.add(number)
        if not again:
            self.schedule.give_up(number, "failed twice")
            self.given_up.add(number)

    @precondition(lambda self: self.reader < self.pages and self.reader in self.arrived | self.given_up)
    @rule()
    def read_on(self) -> None:
        self.reader += 1
        self.schedule.reading(self.reader)

    @precondition(lambda self: self.reader < self.pages and self.reader in self.arrived)
    @rule()
    def damage(self) -> None:
        self.arrived.remove(self.reader)
        self.schedule.damaged(self.reader)

    @invariant()
    def the_reader_is_never_stuck(self) -> None:
        waits_for = self.reader
        if waits_for < self.pages and waits_for not in self.arrived | self.given_up:
            assert not self.schedule.is_in(waits_for)
            # It is in flight, or it will be: no other page can delay it forever.
            assert self.in_flight or self.schedule._todo or self.schedule._late

    def teardown(self) -> None:
        """From any state, all pages are read if no more requests fail."""
        while self.reader < self.pages:
            if self.reader in self.arrived | self.given_up:
                self.reader += 1
                self.schedule.reading(self.reader)
                continue
            while (number := self.schedule.next_page()) is not None:
                self.in_flight.add(number)
            assert self.in_flight
            for number in sorted(self.in_flight):
                self.arrived.add(number)
                self.schedule.arrived(number)
            self.in_flight.clear()


TestAnyOrder = ScheduleMachine.TestCase
