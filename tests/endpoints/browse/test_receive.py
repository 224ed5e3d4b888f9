"""From a page as received, or as stored, to the same decoded page; and no key in anything that is kept."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neows_async.endpoints.browse.decode import PageJson, decode
from neows_async.endpoints.browse.receive import ReceiveOptions, Receiver
from neows_async.errors import BadPageError
from neows_async.pages.content import GZIP
from neows_async.pages.redact import Redactor
from neows_async.pages.stored import compress, is_sound, json_of, seal, store
from neows_async.pages.values import Page, RawPage, StoredPage
from neows_async.testing import browse_page
from tests.decoded_pages import stored_page
from tests.neos import approach, catalogue, neo

KEY = "a-key-that-is-long-enough-to-be-found"
RECEIVER = Receiver(ReceiveOptions(api_key=KEY, keeps_json=True))
# Each object has a link with somebody's key, and the first one's name is the key itself.
BODY = browse_page([neo(0, name=KEY), *catalogue(40)[1:]], 0, 20)
REDACTED = Redactor(KEY)(BODY)
SHA256 = hashlib.sha256(REDACTED).digest()
OTHER = browse_page(catalogue(40), 0, 20).replace(b"SOMEBODYS", b"REDACTED")


def forms(body: bytes, number: int = 0) -> dict[str, RawPage]:
    """A page in each form in which a response's body can be received."""
    half = len(body) // 2
    return {
        "plain": RawPage(number, body),
        "gzip": RawPage(number, gzip.compress(body), GZIP),
        "two members": RawPage(number, gzip.compress(body[:half]) + gzip.compress(body[half:]), GZIP),
    }


def outcome(receiver: Receiver, page: RawPage | StoredPage, size: int | None) -> Page | tuple[str, bytes]:
    """The page; or why it is bad, and the body for inspection."""
    try:
        return receiver.receive(page, size)
    except BadPageError as exc:
        return str(exc), exc.body


def test_a_page_is_the_same_in_whichever_form_it_is_received() -> None:
    expected = replace(decode(PageJson(0, REDACTED, SHA256), 20), source=store(0, REDACTED, SHA256))
    pages = [RECEIVER.receive(raw, 20) for raw in forms(BODY).values()]
    stored = [RECEIVER.check(raw, 20) for raw in forms(BODY).values()]
    assert pages == [expected] * 3
    assert stored == [expected.source] * 3
    assert RECEIVER.receive(stored[0], 20) == expected
    assert RECEIVER.receive_batch(stored, 20) == [expected] * 3
    # A page of a zone without seals.
    assert RECEIVER.receive(RawPage(0, REDACTED), 20) == expected


@given(
    st.lists(
        st.sampled_from(
            [
                neo(1, [approach()]),
                neo(2, [approach(km="?")]),
                neo(3, absolute_magnitude_h="bright"),
                neo(4, name=KEY, new={"x": KEY}),
                neo(5, [approach(orbiting_body="Venus"), approach(odd=None)]),
            ]
        ),
        max_size=5,
    ),
    st.sampled_from([b"", b"}", b"\xff", KEY.encode(), b" ?api_key=" + KEY.encode()]),
    st.sampled_from([None, 5, 20]),
    st.sampled_from([None, "Venus"]),
)
def test_irregular_and_bad_pages_are_the_same_in_every_form(
    objects: list[dict[str, object]], garbage: bytes, size: int | None, orbiting_body: str | None
) -> None:
    receiver = Receiver(ReceiveOptions(api_key=KEY, orbiting_body=orbiting_body, keeps_json=True))
    body = browse_page(objects, 0, 5) + garbage
    redacted = Redactor(KEY)(body)
    found, *others = [outcome(receiver, raw, size) for raw in forms(body).values()]
    assert others == [found] * 2
    if isinstance(found, Page):
        stored = store(0, redacted, found.sha256)
        assert found.source == stored == receiver.check(RawPage(0, body), size)
        assert receiver.receive(stored, size) == found
        assert receiver.receive_batch([stored] * 2, size) == [found] * 2
    else:
        reason, kept = found
        assert kept == redacted
        # The zone has the body of a stored page already.
        assert outcome(receiver, stored_page(redacted), size) == (reason, b"")


def test_no_key_is_in_anything_that_is_kept() -> None:
    for raw in forms(BODY).values():
        page = RECEIVER.receive(raw, 20)
        assert page.source is not None
        for kept in (page.source, RECEIVER.check(raw, 20)):
            body = json_of(kept)
            assert KEY.encode() not in body
            assert b"SOMEBODYS" not in body
            assert (kept.json_bytes, kept.sha256) == (len(body), hashlib.sha256(body).digest())
        assert page.batches["neos"]["name"][0].as_py() == "REDACTED"
        assert KEY not in repr(page) + repr(raw) + repr(ReceiveOptions(api_key=KEY))


@pytest.mark.parametrize("damage", [b"}", KEY.encode(), KEY[:-1].encode(), b"?api_key=TOPSECRET"])
def test_a_bad_page_is_reported_with_its_redacted_body(damage: bytes) -> None:
    body = BODY + damage
    for raw in forms(body).values():
        for call in (RECEIVER.receive, RECEIVER.check):
            with pytest.raises(BadPageError) as caught:
                call(raw, 20)
            assert caught.value.body == Redactor(KEY)(body)
            for secret in (KEY[:16].encode(), b"SOMEBODYS", b"TOPSECRET"):
                assert secret not in caught.value.body
                assert secret.decode() not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (RawPage(0, gzip.compress(BODY)[:-1], GZIP), "before its end"),
        (RawPage(0, BODY, GZIP), "not gzip"),
        (RawPage(0, BODY, "br"), "'br', which was not requested"),
        (RawPage(0, b""), "the body is empty"),
        (RawPage(1, BODY), "page 1"),
        (StoredPage(0, b"", 0, bytes(32)), "damaged"),
        (StoredPage(0, b"rubbish" * 20, 140, bytes(32)), "damaged"),
    ],
)
def test_a_page_that_cannot_be_opened_or_is_another_one_is_bad(raw: RawPage | StoredPage, reason: str) -> None:
    for call in (RECEIVER.receive, RECEIVER.check):
        with pytest.raises(BadPageError, match=reason):
            call(raw, 20)


def test_the_limit_is_of_the_decompressed_body() -> None:
    for raw in forms(BODY).values():
        assert Receiver(ReceiveOptions(max_body_bytes=len(BODY))).receive(raw, 20).info.number == 0
        with pytest.raises(BadPageError, match="larger than"):
            Receiver(ReceiveOptions(max_body_bytes=len(BODY) - 1)).receive(raw, 20)
        with pytest.raises(BadPageError, match="larger than"):
            Receiver(ReceiveOptions(max_body_bytes=len(BODY) - 1)).check(raw, 20)


def test_a_page_of_another_size_than_planned_is_bad() -> None:
    stored = RECEIVER.check(RawPage(0, BODY), None)
    pages: list[RawPage | StoredPage] = [RawPage(0, BODY), stored]
    for page in pages:
        for call in (RECEIVER.receive, RECEIVER.check):
            with pytest.raises(BadPageError, match="size 20, but the run was planned with 10"):
                call(page, 10)
    with pytest.raises(BadPageError, match="size 20, but the run was planned with 10"):
        RECEIVER.receive_batch([stored, stored], 10)


@pytest.mark.parametrize("keeps_json", [False, True])
def test_the_json_is_kept_only_if_it_is_needed(keeps_json: bool) -> None:
    receiver = Receiver(ReceiveOptions(api_key=KEY, keeps_json=keeps_json))
    stored = receiver.check(RawPage(0, BODY), 20)
    pages = [receiver.receive(raw, 20) for raw in forms(BODY).values()]
    pages += [receiver.receive(stored, 20)]
    pages += receiver.receive_batch([stored, stored], 20)
    assert [page.source for page in pages] == [stored if keeps_json else None] * 6
    assert [(page.json_bytes, page.sha256) for page in pages] == [(len(REDACTED), SHA256)] * 6


def test_a_sound_stored_page_is_kept_as_it_is() -> None:
    stored = RECEIVER.check(RawPage(0, BODY), 20)
    assert is_sound(stored)
    assert RECEIVER.receive(stored, 20).source is stored
    assert RECEIVER.receive_batch([stored], 20)[0].source is stored
    assert RECEIVER.check(stored, 20) is stored


@pytest.mark.parametrize(
    "data",
    [
        compress(BODY) + bytes(64),
        compress(BODY) + seal(compress(OTHER), hashlib.sha256(OTHER).digest())[-64:],
        seal(compress(BODY), hashlib.sha256(OTHER).digest()),
        seal(compress(BODY), SHA256)[:-1] + b"?",
    ],
    ids=["no seal", "the seal of another frame", "the digest of another page", "a damaged seal"],
)
def test_a_stored_page_with_a_wrong_seal_is_redacted_hashed_and_sealed_again(data: bytes) -> None:
    page = StoredPage(0, data, len(BODY), SHA256)
    expected = RECEIVER.receive(RawPage(0, BODY), 20)
    assert RECEIVER.check(page, 20) == expected.source
    assert RECEIVER.receive(page, 20) == expected
    assert RECEIVER.receive_batch([page, page], 20) == [expected] * 2


def test_a_bad_page_with_a_wrong_seal_is_reported_with_its_redacted_body() -> None:
    page = StoredPage(0, compress(BODY + KEY.encode()) + bytes(64), len(BODY), SHA256)
    with pytest.raises(BadPageError) as caught:
        RECEIVER.receive(page, 20)
    assert caught.value.body == Redactor(KEY)(BODY + KEY.encode())


@pytest.mark.parametrize("bad_at", range(3))
def test_a_batch_with_a_bad_page_is_bad_as_that_page_is(bad_at: int) -> None:
    good = [RECEIVER.check(RawPage(number, browse_page(catalogue(60), number, 20)), 20) for number in range(3)]
    assert RECEIVER.receive_batch(good, 20) == [RECEIVER.receive(page, 20) for page in good]
    bad = stored_page(REDACTED + b"}", bad_at)
    with pytest.raises(BadPageError) as caught:
        RECEIVER.receive(bad, 20)
    with pytest.raises(BadPageError) as in_batch:
        RECEIVER.receive_batch([*good[:bad_at], bad, *good[bad_at + 1 :]], 20)
    assert str(in_batch.value) == str(caught.value)
