from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import to_thread

from neows_async.decode import check_and_decode
from neows_async.decoding import Decoding, _Helper
from neows_async.errors import BadPageError
from neows_async.page import Page, RawPage
from neows_async.testing import browse_page
from tests.neos import approach, catalogue, neo

if TYPE_CHECKING:
    from collections.abc import Iterator

REGULAR = browse_page(catalogue(40), 0, 20)
TROUBLE = browse_page(
    [neo(1, [approach(km="?")], name="\u00e9"), neo(2, [approach(), approach(orbiting_body="Venus")], new={"x": 1})],
    0,
    2,
)
BODIES = {
    "regular": REGULAR,
    "without objects": browse_page([], 0, 20),
    "rejected and unknown": TROUBLE,
    "another page": browse_page(catalogue(40), 1, 20),
    "short": REGULAR.replace(b'"total_elements": 40', b'"total_elements": 41').replace(b'"size": 20', b'"size": 21'),
    "no JSON": REGULAR + b"}",
    "no UTF-8": REGULAR + b"\xff",
    "NaN": TROUBLE.replace(b'"?"', b"NaN"),
    "nothing": b"",
}


@pytest.fixture
def helper() -> Iterator[_Helper]:
    helper = _Helper("Venus")
    try:
        yield helper
    finally:
        helper.end()


def outcome(page: Page | str) -> object:
    if isinstance(page, str):
        return page
    rest = (page.info, page.body, page.body_sha256, page.indices, page.approach_counts, page.rejected)
    return rest, page.unknown_fields, page.neos.to_pylist(), page.close_approaches.to_pylist(), page.neos.schema


def here(raw: RawPage, size: int | None) -> Page | str:
    try:
        return check_and_decode(raw, size, orbiting_body="Venus")
    except BadPageError as exc:
        return str(exc)


def there(helper: _Helper, raw: RawPage, size: int | None) -> Page | str:
    try:
        return helper.ask(raw, size)
    except BadPageError as exc:
        return str(exc)


def test_a_helper_says_what_would_be_said_here(helper: _Helper) -> None:
    wait_until_ready(helper)
    for name, body in BODIES.items():
        for size in (None, 20, 3):
            raw = RawPage(0, body)
            assert outcome(there(helper, raw, size)) == outcome(here(raw, size)), name


def wait_until_ready(helper: _Helper) -> None:
    helper._socket.setblocking(True)
    assert helper._socket.recv(1) == b"+"
    helper.ready = True


def test_several_who_ask_at_once_each_get_their_own_answer(helper: _Helper) -> None:
    wait_until_ready(helper)
    raws = [RawPage(0, body) for body in BODIES.values()] * 4
    with ThreadPoolExecutor(4) as askers:
        answers = list(askers.map(lambda raw: outcome(there(helper, raw, 20)), raws))
    assert answers == [outcome(here(raw, 20)) for raw in raws]


def test_whoever_waits_for_an_answer_is_told_when_there_will_be_none(helper: _Helper) -> None:
    wait_until_ready(helper)
    helper._process.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(3) as askers:
        asked = [askers.submit(helper.ask, RawPage(0, REGULAR), 20) for _ in range(3)]
        helper._process.kill()
        for one in asked:
            assert isinstance(one.exception(10), (OSError, EOFError))


def test_a_helper_ends_with_its_socket_and_not_by_an_interrupt(helper: _Helper) -> None:
    wait_until_ready(helper)
    helper._process.send_signal(signal.SIGINT)
    assert outcome(there(helper, RawPage(0, REGULAR), 20)) == outcome(here(RawPage(0, REGULAR), 20))
    helper._socket.close()
    assert helper._process.wait(10) == 0


async def test_who_loses_its_helper_goes_on_alone() -> None:
    raw = RawPage(0, REGULAR)
    async with Decoding(helpers=1, orbiting_body="Venus") as decoding:
        await decoding._start()
        (helper,) = decoding._helpers
        await to_thread.run_sync(wait_until_ready, helper)
        expected = outcome(here(raw, 20))
        for _ in range(2):
            assert outcome(await decoding.run(lambda read: read(raw, 20))) == expected
        assert decoding._least_busy() is helper
        helper._process.kill()
        for _ in range(2):
            assert outcome(await decoding.run(lambda read: read(raw, 20))) == expected
        assert decoding._least_busy() is None


async def test_helpers_are_started_when_pages_have_to_wait_and_end_with_the_run() -> None:
    raw = RawPage(0, REGULAR)
    async with Decoding(helpers=2, orbiting_body=None) as decoding:

        async def read_many() -> None:
            for _ in range(30):
                page = await decoding.run(lambda read: read(raw, 20))
                assert json.loads(page.body) == json.loads(REGULAR)

        await read_many()
        assert decoding._helpers == []  # one after the other none has to wait
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(read_many)
        helpers = decoding._helpers
        assert len(helpers) == 2
    assert [helper._process.returncode for helper in helpers] == [-signal.SIGKILL] * 2
