"""``plan``: one request or none, nothing written, and a plan or one line of error."""

from __future__ import annotations

import datetime as dt
import json
import secrets
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests import loopback, program
from tests.loopback import Answer, Asked
from tests.neos import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.program import Ended

KEY = secrets.token_hex(20)
QUOTA = {"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "639"}


def plan(cwd: Path, url: str, *arguments: str, **variables: str) -> Ended:
    variables = {"NASA_API_KEY": KEY, "XDG_STATE_HOME": str(cwd / "state")} | variables
    return program.run(cwd, "plan", "--base-url", url, "--root", "lake", *arguments, **variables)


def run(cwd: Path, url: str, *arguments: str) -> Ended:
    state = str(cwd / "state")
    return program.run(
        cwd, "run", "--base-url", url, "--root", "lake", *arguments, NASA_API_KEY=KEY, XDG_STATE_HOME=state
    )


def metered(objects: int) -> Callable[[Asked], Answer]:
    """A source with ``objects`` objects by its envelope; only page 0 is whole."""
    full = loopback.browse(catalogue(20))

    def answer(asked: Asked) -> Answer:
        page = json.loads(full(asked).body)
        page["page"] = {"size": 20, "total_elements": objects, "total_pages": 0, "number": asked.page}
        return Answer(json.dumps(page).encode(), headers=QUOTA)

    return answer


def at(text: str) -> dt.datetime:
    return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)


RUN = {
    "start": str, "end": str, "lasts_s": float, "exit_code": int, "requests_left": int,
    "resume_at": (str, type(None)), "waits": list,
}  # fmt: skip
SCHEMA: dict[str, Any] = {
    "at": str,
    "objects": {"catalogue": int, "wanted": int},
    "pages": {"size": int, "wanted": int, "kept": int},
    "requests": {"needed": int, "asked": int},
    "snapshot": {"id": (str, type(None)), "committed": bool, "held_by": (str, type(None))},
    "quota": {
        "limit": int, "left": int, "daily_limit": (int, type(None)), "daily_left": (int, type(None)),
        "told_by": str, "told_at": str,
    },
    "assumed": {
        "answer_s": float, "answer_from": str, "answers": int, "concurrency": int,
        "max_rate_per_s": (float, type(None)),
    },
    "now": RUN,
    "earliest_end": str,
    "best": RUN,
    "shortest": RUN,
    "notes": list,
}  # fmt: skip


def fits(value: Any, schema: Any) -> bool:
    """Whether ``value`` has exactly the members of ``schema``, each of its type."""
    if isinstance(schema, dict):
        return isinstance(value, dict) and value.keys() == schema.keys() and all(
            fits(value[name], kind) for name, kind in schema.items()
        )  # fmt: skip
    return isinstance(value, schema)


def test_plan_needs_one_request_and_writes_nothing(tmp_path: Path) -> None:
    with loopback.serving(metered(41_282)) as server:
        ended = plan(tmp_path, server.url, "--all", "--json")
    assert ended.code == 0, ended.err
    assert server.pages == [0]
    assert not (tmp_path / "lake").exists()
    planned = json.loads(ended.out)
    assert fits(planned, SCHEMA), planned
    assert planned["objects"] == {"catalogue": 41_282, "wanted": 41_282}
    assert planned["pages"] == {"size": 20, "wanted": 2_065, "kept": 0}
    assert planned["requests"] == {"needed": 2_065, "asked": 1}
    assert (planned["quota"]["limit"], planned["quota"]["left"], planned["quota"]["told_by"]) == (1_000, 639, "answer")
    # 2,065 do not fit into what is left of this hour and all of the next.
    assert at(planned["now"]["end"]) - at(planned["now"]["start"]) > dt.timedelta(hours=1)
    assert at(planned["earliest_end"]) <= at(planned["now"]["end"])
    assert at(planned["best"]["end"]) <= at(planned["now"]["end"]) + dt.timedelta(seconds=61)
    assert planned["shortest"]["lasts_s"] <= planned["best"]["lasts_s"] <= planned["now"]["lasts_s"]
    assert KEY not in ended.out + ended.err


def test_text_has_figures_and_a_timeline(tmp_path: Path) -> None:
    with loopback.serving(metered(41_282)) as server:
        ended = plan(tmp_path, server.url, "--all", PYTHONIOENCODING="ascii")
    assert ended.code == 0, ended.err
    assert ended.out.isascii()
    assert "all 41,282, on 2,065 pages of 20" in ended.out
    assert "639 of 1,000 an hour left" in ended.out
    assert "Best minute to start: " in ended.out
    [drawn] = [line for line in ended.out.splitlines() if line.startswith("now ")]
    assert "#" in drawn
    assert max(map(len, ended.out.splitlines())) <= 80


def test_no_request_plans_from_the_last_receipt(tmp_path: Path) -> None:
    with loopback.serving(loopback.browse(catalogue(60))) as server:
        before = plan(tmp_path, server.url, "--no-request")
        assert before.code == 2
        assert "no receipt of this source yet" in before.last_line
        assert run(tmp_path, server.url, "--limit", "40").code == 0
        asked = len(server.asked)
        ended = plan(tmp_path, server.url, "--all", "--no-request", "--json")
        keyless = plan(tmp_path, server.url, "--all", "--no-request", NASA_API_KEY="")
        assert len(server.asked) == asked
    assert ended.code == keyless.code == 0, ended.err + keyless.err
    planned = json.loads(ended.out)
    assert fits(planned, SCHEMA), planned
    assert planned["objects"] == {"catalogue": 60, "wanted": 60}
    assert planned["requests"] == {"needed": 3, "asked": 0}
    assert (planned["quota"]["left"], planned["quota"]["told_by"]) == (990, "receipt")
    assert (planned["assumed"]["answer_from"], planned["assumed"]["answers"]) == ("receipt", 2)


def test_stored_pages_need_no_request(tmp_path: Path) -> None:
    with loopback.serving(loopback.browse(catalogue(200))) as server:
        assert run(tmp_path, server.url, "--budget", "4").code == 75
        files = sorted(str(path) for path in tmp_path.glob("lake/**/*"))
        planned = json.loads(plan(tmp_path, server.url, "--json").out)
        assert sorted(str(path) for path in tmp_path.glob("lake/**/*")) == files
        assert planned["pages"] == {"size": 20, "wanted": 10, "kept": 4}
        assert planned["requests"]["needed"] == 6
        fresh = json.loads(plan(tmp_path, server.url, "--json", "--fresh").out)
        assert fresh["requests"]["needed"] == 10
        asked = len(server.asked)
        assert run(tmp_path, server.url).code == 0
        assert len(server.asked) - asked == 6
        committed = plan(tmp_path, server.url, "--snapshot", planned["snapshot"]["id"])
    assert "is committed" in committed.out
    assert "A run would send no request" in committed.out


def test_plan_reads_the_config_file_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "neows.toml").write_text(f'nasa_api_key = "{KEY}"\nall = true\nwithin_au = 0.1\nbudget = 7\n')
    with loopback.serving(metered(2_000)) as server:
        ended = plan(tmp_path, server.url, "--config", "neows.toml", NASA_API_KEY=KEY)
    assert ended.code == 0, ended.err
    assert "(--budget, exit code 75) after 7 requests, with 93 to go" in ended.out


def test_waits_for_max_rate_are_not_blamed_on_the_quota(tmp_path: Path) -> None:
    with loopback.serving(metered(2_000)) as server:
        ended = plan(tmp_path, server.url, "--limit", "60", "--max-rate", "0.01")
    assert ended.code == 0, ended.err
    assert "waits for --max-rate or the quota after 1 request: " in ended.out


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (Answer(b'{"error":{"code":"API_KEY_INVALID"}}', 403), 77, "API_KEY_INVALID"),
        (Answer(b"", 429, {"Retry-After": "900"} | QUOTA), 75, "429, over the rate limit; run the same command again"),
        (Answer(b"<html>Application error</html>", 503, QUOTA), 69, "--no-request plans without a request"),
        (Answer(b"<html>hello</html>", 200, QUOTA), 69, "not a Browse page"),
    ],
)
def test_bad_response_is_one_line_and_not_retried(tmp_path: Path, answer: Answer, code: int, said: str) -> None:
    with loopback.serving(lambda _: answer) as server:
        ended = plan(tmp_path, server.url, "--json")
    assert (ended.code, ended.out, len(server.asked)) == (code, "", 1)
    line = json.loads(ended.last_line)
    assert line["exit_code"] == code
    assert said in line["message"]
    assert not (tmp_path / "lake").exists()


def test_unreachable_source_missing_key_and_plain_http_are_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
    for url, key, code, said in (
        (nowhere, KEY, 69, "cannot be reached"),
        (nowhere, "", 77, "needs a key: set NASA_API_KEY"),
        ("http://example.invalid", KEY, 2, "--base-url"),
    ):
        ended = plan(tmp_path, url, NASA_API_KEY=key)
        assert (ended.code, ended.out) == (code, "")
        assert said in ended.last_line
