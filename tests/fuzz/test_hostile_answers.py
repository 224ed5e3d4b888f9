"""Whatever a server says, a page comes of it or one error of ours: in time, in bounded memory, and without the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import judging
from tests.fuzz.answers import KEY, answers, bodies, good_body

FOUND = Path(__file__).parent / "found"


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(given_answers=st.lists(answers(), min_size=1, max_size=2))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_hostile_answer_ends_as_a_page_or_as_one_error(backend: str, given_answers: list[list[bytes]]) -> None:
    outcome = judging.outcome_of(given_answers, backend)
    assert (outcome.page is None) != (outcome.error is None)


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(body=bodies)
def test_a_hostile_body_is_a_page_to_both_readers_or_to_none(body: bytes) -> None:
    judging.readable(body)


@pytest.mark.parametrize("file", sorted(FOUND.glob("*.bin")), ids=lambda file: file.stem)
def test_what_was_found_once_stays_mended(file: Path) -> None:
    judging.readable(file.read_bytes())


def test_the_judge_sees_what_is_wrong() -> None:
    page = judging.readable(good_body())
    assert page is not None
    assert len(page.indices) == 3
    for text in (KEY, f"x{KEY}x", "".join(f"%{byte:02X}" for byte in KEY.encode())):
        assert judging.leaked(text)
    assert not judging.leaked(KEY[:-1])
    with pytest.raises(judging.FindingError, match="the key is in"):
        judging.look_for_the_key(judging.Outcome(error=ValueError(f"?api_key={KEY}")))
