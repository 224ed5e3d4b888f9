"""Where pages wait for their reader."""

from __future__ import annotations

import pytest

from neows_async.endpoints.browse import envelope
from neows_async.endpoints.browse.decode import decode_checked
from neows_async.endpoints.browse.page_plan import plan_pages
from neows_async.pages.values import RawPage, SpentPage
from neows_async.pipeline.buffer import PageBuffer
from neows_async.testing import browse_page
from tests.neos import catalogue

BODY = browse_page(catalogue(20), 0, 20)


def landing_of(body: bytes, window_pages: int) -> PageBuffer:
    info, _ = envelope.split(body)
    return PageBuffer(
        plan_pages(info, None),
        None,
        kept=frozenset(),
        window_pages=window_pages,
        max_missing_pages=0,
        listener=lambda _: None,
    )


@pytest.mark.parametrize("spent", [False, True])
async def test_what_waits_in_memory_waits_without_a_body_that_is_spent(spent: bool) -> None:
    landing = landing_of(BODY, 4)
    raw = RawPage(0, BODY)
    page = decode_checked(raw, None)
    assert landing.next_page() == 0
    await landing.put(raw.with_decoded(page.spent() if spent else page))
    took = await landing.take(0)
    assert took is not None
    assert isinstance(took, SpentPage) == spent
    assert took.size == len(BODY)
    assert took.decoded is not None
    assert took.decoded.neos.equals(page.neos)
    if not spent:
        assert took.body == BODY


async def test_without_a_zone_nobody_fetches_further_ahead_than_the_window_which_may_become_narrower() -> None:
    landing = landing_of(browse_page(catalogue(400), 0, 20), 8)
    assert [landing.next_page() for _ in range(9)] == [*range(8), None]
    landing.narrow(16)  # which it is not
    assert landing.next_page() is None
    landing.narrow(2)
    for number in range(6):
        await landing.put(RawPage(number, BODY))
    await landing.take(5)
    assert landing.next_page() is None
    assert landing.is_near(6)
    assert not landing.is_near(7)
    await landing.put(RawPage(6, BODY))
    await landing.put(RawPage(7, BODY))
    await landing.take(7)
    assert [landing.next_page() for _ in range(2)] == [8, None]
