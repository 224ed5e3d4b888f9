from __future__ import annotations

from typing import TYPE_CHECKING

from neows_async.pacing.concurrency import AdaptiveConcurrency
from neows_async.pacing.forecast import Outlook, forecast
from neows_async.pacing.hour import HourCounts

if TYPE_CHECKING:
    from collections.abc import Callable

NOON_S = 1_800_014_400


def finish_s(pages: int, limit: int, previous: int = 0) -> Callable[[int, float], float]:
    def ends_s(concurrency: int, latency_s: float) -> float:
        counts = HourCounts(NOON_S // 3600, 0, previous)
        outlook = Outlook(pages=pages, limit=limit, counts=counts, latency_s=latency_s, concurrency=concurrency)
        return forecast(outlook, NOON_S).finish_s

    return ends_s


def settled(
    concurrency: AdaptiveConcurrency, ends_s: Callable[[int, float], float], latency_s: Callable[[int], float]
) -> int:
    """Where it ends up when the source answers as ``latency_s`` says."""
    for _ in range(40):
        under_way = concurrency.wanted(ends_s)
        concurrency.answered(under_way, latency_s(under_way))
    return concurrency.wanted(ends_s)


def test_it_begins_with_one() -> None:
    assert AdaptiveConcurrency(4).wanted(finish_s(2_065, 1_000)) == 1


def test_it_rises_to_the_most_while_that_helps() -> None:
    assert settled(AdaptiveConcurrency(4), finish_s(800, 1_000), lambda _: 2.0) == 4


def test_one_is_enough_when_the_quota_is_what_takes_long() -> None:
    # A slot comes free every four seconds or more: one fetcher takes each at once.
    assert settled(AdaptiveConcurrency(16), finish_s(500, 900, previous=900), lambda _: 2.0) == 1


def test_a_source_that_is_slower_the_more_it_is_asked_gets_no_more() -> None:
    assert settled(AdaptiveConcurrency(16), finish_s(800, 1_000), lambda under_way: 1.0 * under_way) <= 2


def test_many_failures_halve_it_and_good_answers_bring_it_back() -> None:
    concurrency, ends_s = AdaptiveConcurrency(8), finish_s(800, 1_000)
    assert settled(concurrency, ends_s, lambda _: 2.0) == 8
    for _ in range(20):
        concurrency.failed()
    assert concurrency.wanted(ends_s) == 4
    for _ in range(100):
        concurrency.answered(4, 2.0)
    assert concurrency.wanted(ends_s) == 8


def test_a_few_failures_change_nothing() -> None:
    concurrency, ends_s = AdaptiveConcurrency(8), finish_s(800, 1_000)
    assert settled(concurrency, ends_s, lambda _: 2.0) == 8
    for _ in range(10):
        concurrency.failed()
        for _ in range(9):
            concurrency.answered(8, 2.0)
    assert concurrency.wanted(ends_s) == 8
