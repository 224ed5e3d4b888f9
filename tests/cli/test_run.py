"""``run``: a failure is one line and an exit code, and no half-written snapshot is visible."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import duckdb
import pytest

from tests import loopback, program
from tests.loopback import Answer, Asked
from tests.neos import approach, catalogue, neo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.program import Ended

BUDGET_S = 30.0 / 2  # half of the default --retry-budget
KEY = secrets.token_hex(20)
QUICK = ("--retry-budget", "0.4s")


def run(root: Path, url: str, *arguments: str, **variables: str) -> Ended:
    variables.setdefault("NASA_API_KEY", KEY)
    return program.run(root, "run", "--base-url", url, "--root", "lake", *QUICK, *arguments, **variables)


def rows_of(files: str, columns: str) -> list[Any]:
    return duckdb.connect().execute(f"SELECT {columns} FROM read_parquet(?)", [files]).fetchall()  # noqa: S608 - our own


def nothing_visible(folder: Path) -> bool:
    return not any((folder / "lake" / name).exists() for name in ("neos", "close_approaches", "aggregates", "_runs"))


def page_of(**changes: Any) -> Callable[[Asked], Answer]:
    """A good page of 40 objects, with members of the envelope replaced."""

    def answer(asked: Asked) -> Answer:
        page = json.loads(loopback.browse(catalogue(40))(asked).body)
        return Answer(json.dumps(page | changes).encode())

    return answer


def text_of(body: str) -> Callable[[Asked], Answer]:
    return lambda _: Answer(body.encode())


HTML = "<!DOCTYPE html><html><body>Application error</body></html>"
INFO = {"size": 20, "total_elements": 40, "total_pages": 2, "number": 0}


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (text_of(HTML), 69, "not a Browse page: it starts with '<!DOCTYPE"),
        (text_of('{"page": '), 69, "not JSON"),
        (text_of(""), 69, "the body is empty"),
        (text_of("[]"), 69, "not a Browse page"),
        (page_of(page=[]), 69, "not a Browse page"),
        (page_of(near_earth_objects={}), 69, "not a Browse page"),
        (page_of(page=INFO | {"number": 3}), 69, "expected page 0, but this is page 3"),
        (page_of(near_earth_objects=catalogue(19)), 69, "announces 20 objects, but holds 19"),
        (page_of(page=INFO | {"total_elements": 0}, near_earth_objects=[]), 65, "the catalogue is empty"),
        (lambda _: Answer(b'{"error":{"code":"API_KEY_INVALID"}}', 403), 77, "API_KEY_INVALID"),
        (lambda _: Answer(b'{"code":400,"error_message":"no"}', 400), 69, "400"),
        (lambda _: Answer(b"", 404), 69, "404"),
        (lambda _: Answer(HTML.encode(), 503, {"Content-Type": "text/html"}), 69, "503"),
        (lambda _: Answer(b"", 302, {"Location": "http://evil.invalid/"}), 69, "a redirect to evil.invalid"),
        (lambda _: Answer(b"no gzip", headers={"Content-Encoding": "gzip"}), 69, "not gzip"),
        (lambda _: Answer(b"what", headers={"Content-Encoding": "br"}), 69, "encoded as 'br'"),
    ],
)
def test_response_that_is_not_a_page_fails_the_run(
    tmp_path: Path, answer: Callable[[Asked], Answer], code: int, message: str
) -> None:
    with loopback.serving(answer) as server:
        ended = run(tmp_path, server.url)
    assert ended.code == code, ended.err
    assert message in ended.last_line
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert nothing_visible(tmp_path)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--max-body-bytes", "10000"), "the body is larger than 10000 bytes"),
        (("--request-timeout", "0.1s"), "no complete response within 0.1 s"),
    ],
)
def test_limits_on_size_and_time_of_a_response(tmp_path: Path, option: tuple[str, str], message: str) -> None:
    objects, ended = loopback.browse(catalogue(200)), threading.Event()

    def answer(asked: Asked) -> Answer:
        if option[0] == "--request-timeout":
            ended.wait(program.LIMIT_S)
        return objects(asked)

    with loopback.serving(answer) as server:
        arguments = ("run", "--base-url", server.url, "--root", "lake", "--retry-budget", "1s", *option)
        outcome = program.run(tmp_path, *arguments, NASA_API_KEY=KEY)
        ended.set()
    assert outcome.code == 69
    assert message in outcome.last_line


def test_unreachable_source_fails_without_retries(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    started_s = time.monotonic()
    ended = program.run(tmp_path, "run", "--base-url", f"http://127.0.0.1:{port}", "--root", "lake", NASA_API_KEY=KEY)
    assert ended.code == 69
    assert "cannot be reached" in ended.last_line
    assert time.monotonic() - started_s < BUDGET_S, "it is not retried until the budget is spent"
    assert nothing_visible(tmp_path)


def test_unresolvable_host_fails_without_retries(tmp_path: Path) -> None:
    started_s = time.monotonic()
    ended = program.run(tmp_path, "run", "--base-url", "https://nowhere.invalid", "--root", "lake", NASA_API_KEY=KEY)
    assert ended.code == 69
    assert "nowhere.invalid cannot be reached" in ended.last_line
    assert time.monotonic() - started_s < BUDGET_S, "it is not retried until the budget is spent"


def test_rejected_objects_go_to_quarantine_and_the_rest_is_stored(tmp_path: Path) -> None:
    objects = catalogue(60)
    objects[3] = neo(3, absolute_magnitude_h=float("nan"))
    objects[25] = neo(25, [approach(), approach(km="1_000")], id="9000025")
    objects[41] = {"name": "(NO ID)"}
    with loopback.serving(loopback.browse(objects)) as server:
        ended = run(tmp_path, server.url, "--all", "--snapshot", "a", "--no-archive")
    assert ended.code == 0, ended.err
    assert "Rejected 3 unreadable objects" in ended.out
    lines = (tmp_path / "lake/quarantine/snapshot=a/rejected.jsonl").read_text().splitlines()
    rejected = [json.loads(line) for line in lines]
    assert [
        (entry["page"], entry["position"], entry["id"], entry["reason"], entry["pointer"]) for entry in rejected
    ] == [
        (0, 3, "9000003", "not a finite number: nan", "/near_earth_objects/3/absolute_magnitude_h"),
        (
            *(1, 25, "9000025", "not a number: '1_000'"),
            "/near_earth_objects/5/close_approach_data/1/miss_distance/kilometers",
        ),
        (2, 41, None, "neither id nor neo_reference_id is given", "/near_earth_objects/1"),
    ]
    assert '"absolute_magnitude_h": NaN' in rejected[0]["raw"]
    assert json.loads(rejected[1]["raw"])["close_approach_data"][1]["miss_distance"]["kilometers"] == "1_000"


def test_too_many_rejects_end_the_run_resumably(tmp_path: Path) -> None:
    with loopback.serving(loopback.browse([neo(number, name=number) for number in range(60)])) as server:
        ended = run(tmp_path, server.url)
        assert ended.code == 65
        assert "more than --max-rejects 20" in ended.last_line
        assert nothing_visible(tmp_path)
        kept = {int(page.name[5:10]) for page in tmp_path.glob("lake/raw/*/gen=0/page=*.json.zst")}
        before = len(server.asked)
        assert run(tmp_path, server.url, "--max-rejects", "60").code == 0
    assert sorted(server.pages[before:]) == sorted({0, 1, 2} - kept), "the second run fetches only the missing pages"


def test_older_page_shape_and_unknown_fields_are_accepted(tmp_path: Path) -> None:
    old = neo(1, [approach()])
    for name in ("id", "designation"):
        del old[name]
    old["orbital_data"] = {"orbital_period": "365.25"}
    new = neo(2, [approach() | {"light_time": "1"}], colour="grey")
    with loopback.serving(loopback.browse([old, new])) as server:
        ended = run(tmp_path, server.url, "--snapshot", "a")
    assert ended.code == 0, ended.err
    assert "Unknown fields, kept in the raw pages: close_approach_data.light_time, colour" in ended.out
    rows = rows_of(f"{tmp_path}/lake/neos/snapshot=a/*.parquet", "*")
    assert [row[0] for row in rows] == ["9000001", "9000002"]
    receipt = json.loads((tmp_path / "lake/_runs/a.json").read_bytes())
    assert receipt["nulls"]["neos.designation"] == 1
    assert receipt["nulls"]["neos.observations_used"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--limit", "0"), "--limit: 0 is too small; it must be at least 1"),
        (("--limit", "-5"), "--limit: -5 is too small"),
        (("--limit", "many"), "'many' is not a valid integer"),
        (("--limit", "5", "--all"), "--all and --limit contradict each other"),
        (("--base-url", "http://example.org"), "would send the key unencrypted"),
        (("--base-url", "ftp://x"), "must start with https://"),
        (("--base-url", "https://user:pw@example.org"), "must not hold a user"),
        (("--partition-by", "neos"), "'neos' is not DATASET:COLUMN"),
        (("--partition-by", "moons:name"), "there is no dataset 'moons'"),
        (("--partition-by", "neos:colour"), "neos has no column 'colour'"),
        (("--partition-by", "neos:orbital_period_d"), "is of type double"),
        (("--orbiting-body", "Vulcan"), "there is no orbiting body 'Vulcan'"),
        (("--within-au", "0"), "--within-au: 0.0 is too small"),
        (("--within-au", "nan"), "--within-au"),
        (("--snapshot", "../x"), "a snapshot id has 1 to 64 letters"),
        (("--snapshot", "latest"), "is not 'latest'"),
        (("--retry-budget", "soon"), "'soon' is not a duration"),
        (("--sink", "parket"), "did you mean 'parquet'?"),
        (("--aggregator", "nowhere:at_all"), "cannot be loaded: ModuleNotFoundError"),
        (("--aggregator", "close_approaches_within") * 2, "two parts have the name 'close_approaches_within'"),
        (("--source", "archive"), "--source archive needs --from-snapshot"),
        (("--source", "archive", "--from-snapshot", "x"), "has no snapshot x"),
        (("--root", "s4://bucket"), "s4:// is no known storage"),
        (("--concurrency", "65"), "--concurrency: 65 is too large; it must be at most 64"),
        (("--colour",), "No such option"),
        (("--root", ""), "root"),
    ],
)
def test_wrong_usage_exits_with_2_and_writes_nothing(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    ended = program.run(tmp_path, "run", *arguments, NASA_API_KEY=KEY)
    assert ended.code == 2, ended.err
    assert message in ended.last_line
    assert len(ended.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("why", [("--root", "lake"), ("--base-url", "https://example.org"), ("--snapshot", "a")])
def test_missing_key_is_an_error_unless_the_run_is_bare(tmp_path: Path, why: tuple[str, str]) -> None:
    ended = program.run(tmp_path, "run", *why)
    assert ended.code == 77
    assert "NASA_API_KEY=DEMO_KEY (enough for 200)" in ended.last_line
    assert "--source sandbox" in ended.last_line
    assert list(tmp_path.iterdir()) == []


def test_unusable_root_fails_before_the_first_request(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("I am a file")
    with loopback.serving(loopback.browse(catalogue(3))) as server:
        ended = run(tmp_path, server.url)
    assert ended.code == 74
    assert "lake" in ended.last_line
    assert server.asked == [], "no request is sent if the lake cannot be written"


def test_limit_above_the_catalogue_stores_all_of_it(tmp_path: Path) -> None:
    with loopback.serving(loopback.browse(catalogue(30))) as server:
        ended = run(tmp_path, server.url, "--limit", "500")
    assert ended.code == 0
    assert "500 objects were requested; the catalogue has 30, and this is all of it" in ended.out
    assert "30 near-Earth objects" in ended.out


def test_damaged_raw_page_fails_a_rebuild_and_is_named(tmp_path: Path) -> None:
    with loopback.serving(loopback.browse(catalogue(40))) as server:
        assert run(tmp_path, server.url, "--snapshot", "a").code == 0
    page = tmp_path / "lake/raw/snapshot=a/gen=0/page=00001.json.zst"
    page.write_bytes(page.read_bytes()[:100])
    ended = program.run(tmp_path, "run", "--source", "archive", "--from-snapshot", "a", "--root", "lake")
    assert ended.code == 65
    assert "raw page 1 of snapshot a is damaged" in ended.last_line


@pytest.mark.parametrize(("given", "concurrency"), [((), 8), (("--concurrency", "3"), 3)])
def test_archive_reads_use_concurrency_8_by_default(tmp_path: Path, given: tuple[str, ...], concurrency: int) -> None:
    with loopback.serving(loopback.browse(catalogue(40))) as server:
        assert run(tmp_path, server.url, "--snapshot", "a").code == 0
    from_archive = ("run", "--from-snapshot", "a", "--snapshot", "b", "--root", "lake", *given)
    assert program.run(tmp_path, *from_archive).code == 0
    receipt = json.loads((tmp_path / "lake/_runs/b.json").read_bytes())
    assert receipt["operation"]["concurrency"] == concurrency


def test_precedence_is_arguments_environment_dotenv_file(tmp_path: Path) -> None:
    (tmp_path / "neows.toml").write_text('limit = 2\nwithin_au = 0.05\nroot = "lake"\nmax_rejects = 3\n')
    (tmp_path / ".env").write_text(f"NASA_API_KEY={KEY}\nNEOWS_LIMIT=3\nNEOWS_MAX_REJECTS=4\n")
    with loopback.serving(loopback.browse(catalogue(40))) as server:
        arguments = ("run", "--config", "neows.toml", "--base-url", server.url, "--snapshot", "a")
        ended = program.run(tmp_path, *arguments, "--concurrency", "2", NEOWS_MAX_REJECTS="5", NEOWS_CONCURRENCY="3")
    assert ended.code == 0, ended.err
    receipt = json.loads((tmp_path / "lake/_runs/a.json").read_bytes())
    assert receipt["identity"]["limit"] == 3, ".env is before the file"
    assert receipt["derivation"]["within_au"] == 0.05, "the file is before the default"
    assert receipt["derivation"]["max_rejects"] == 5, "the environment is before .env"
    assert receipt["operation"]["concurrency"] == 2, "arguments are before the environment"
    assert server.asked[0].key == KEY


def test_all_as_argument_overrides_limit_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "neows.toml").write_text('limit = 2\nnasa_api_key = "0123456789abcdef0123"\n')
    with loopback.serving(loopback.browse(catalogue(40))) as server:
        arguments = ("run", "--config", "neows.toml", "--base-url", server.url, "--root", "lake", "--all")
        ended = program.run(tmp_path, *arguments)
    assert ended.code == 0, ended.err
    assert "40 near-Earth objects" in ended.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limitt = 5", "there is no setting 'limitt'; did you mean 'limit'?"),
        ("nasa_key = 'x'", "did you mean 'nasa_api_key'?"),
        ("limit = ", "is not TOML"),
        ("limit = 'few'", "'few' is not a valid integer"),
        ("[run]\nlimit = 5", "there is no setting 'run'"),
    ],
)
def test_invalid_config_file_is_rejected_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "neows.toml").write_text(text)
    ended = program.run(tmp_path, "run", "--config", "neows.toml", NASA_API_KEY=KEY)
    assert ended.code == 2
    assert message in ended.last_line
    assert ended.err.count("\n") == 1


OWN_PARTS = """
class Eccentricity:
    name = "eccentricity"
    needs_json = True

    def __init__(self, settings):
        self.values = []

    def update_json(self, batches, objects):
        self.values += [float(record["orbital_data"]["eccentricity"]) for record in objects]

    def merge(self, other):
        self.values += other.values

    def result(self):
        return {"neos": len(self.values), "least": min(self.values)}


class Names:
    name = "names"

    def __init__(self):
        self.names = []

    async def open(self, stage):
        self.stage = stage

    async def write(self, page):
        self.names += page.batches["neos"]["name"].to_pylist()

    async def finish(self):
        file = await self.stage.open("names", "names.txt")
        await file.write("\\n".join(self.names).encode())
        return [await file.finish(len(self.names))]

    async def commit(self):
        pass
"""


def test_custom_parts_by_module_and_attribute(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_PARTS)
    with loopback.serving(loopback.browse(catalogue(30))) as server:
        ended = run(
            tmp_path,
            server.url,
            *("--sink", "parquet", "--sink", "own:Names", "--aggregator", "own:Eccentricity", "--snapshot", "a"),
        )
    assert ended.code == 0, ended.err
    assert (tmp_path / "lake/names/snapshot=a/names.txt").read_text().splitlines()[:2] == ["(0 TEST)", "(1 TEST)"]
    figures = json.loads((tmp_path / "lake/aggregates/snapshot=a/eccentricity.json").read_bytes())
    assert figures == {"neos": 30, "least": 0.05}
    assert not (tmp_path / "lake/aggregates/snapshot=a/close_approaches_within.json").exists()


def test_custom_parts_by_entry_point(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_PARTS)
    info = tmp_path / "own-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[neows_async.aggregators]\neccentricity = own:Eccentricity\n")
    with loopback.serving(loopback.browse(catalogue(30))) as server:
        arguments = ("--aggregator", "eccentricity", "--snapshot", "a")
        ended = run(tmp_path, server.url, *arguments, PYTHONPATH=str(tmp_path))
    assert ended.code == 0, ended.err
    assert (tmp_path / "lake/aggregates/snapshot=a/eccentricity.json").exists()


def test_log_format_json_prints_events_and_the_receipt(tmp_path: Path) -> None:
    with loopback.serving(loopback.browse(catalogue(30))) as server:
        ended = run(tmp_path, server.url, "--log-format", "json")
        assert json.loads(ended.out)["records"]["written"] == 30
        kinds = [json.loads(line)["event"] for line in ended.err.splitlines()]
        assert kinds[:2] == ["run_started", "snapshot_opened"]
        assert kinds[-2:] == ["committed", "run_ended"]
    ended = run(tmp_path, server.url, "--log-format", "json")
    assert json.loads(ended.last_line) == {
        "event": "error",
        "exit_code": 69,
        "message": json.loads(ended.last_line)["message"],
    }
    assert "cannot be reached" in ended.last_line


def test_quiet_run_prints_nothing(tmp_path: Path) -> None:
    with loopback.serving(loopback.browse(catalogue(30))) as server:
        ended = run(tmp_path, server.url, "--quiet")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_printed_duckdb_line_runs_in_a_shell(tmp_path: Path) -> None:
    with loopback.serving(loopback.browse(catalogue(30))) as server:
        root = tmp_path / "it's a lake"
        ended = program.run(tmp_path, "run", "--base-url", server.url, "--root", str(root), *QUICK, NASA_API_KEY=KEY)
    assert ended.code == 0, ended.err
    line = ended.out.strip().splitlines()[-1].strip()
    assert line.startswith("duckdb -c ")
    query = program.query_for_duckdb(tmp_path, line)
    rows = duckdb.connect().execute(query).fetchall()
    assert len(rows) == 5
    assert all(row[2] == pytest.approx(14959787.07) for row in rows)


def test_path_prints_the_folder_of_the_latest_snapshot(tmp_path: Path) -> None:
    assert program.run(tmp_path, "path", "--root", "lake").code == 2
    with loopback.serving(loopback.browse(catalogue(3))) as server:
        for snapshot in ("2026-02-01", "2026-01-01"):
            assert run(tmp_path, server.url, "--snapshot", snapshot).code == 0
    ended = program.run(tmp_path, "path", "close_approaches", "--root", "lake")
    assert (ended.code, ended.out) == (0, "lake/close_approaches/snapshot=2026-02-01\n")
    assert program.run(tmp_path, "path", "moons", "--root", "lake").code == 2


def test_run_of_a_committed_snapshot_prints_its_receipt(tmp_path: Path) -> None:
    with loopback.serving(loopback.browse(catalogue(30))) as server:
        assert run(tmp_path, server.url, "--snapshot", "a").code == 0
        count = len(server.asked)
        again = run(tmp_path, server.url, "--snapshot", "a")
        assert (again.code, len(server.asked)) == (0, count)
        assert "30 near-Earth objects" in again.out
        other = run(tmp_path, server.url, "--snapshot", "a", "--within-au", "0.1")
    assert other.code == 2
    assert "snapshot a is committed with another within_au (0.2, not 0.1)" in other.last_line


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_a_run_resumably(tmp_path: Path, number: signal.Signals, code: int) -> None:
    asked_for_more = threading.Event()
    go_on = threading.Event()
    objects = loopback.browse(catalogue(60))

    def answer(asked: Asked) -> Answer:
        if asked.page == 2:
            asked_for_more.set()
            go_on.wait(2 * program.LIMIT_S)
        return objects(asked)

    with loopback.serving(answer) as server:
        arguments = ("run", "--base-url", server.url, "--root", "lake", "--concurrency", "1")
        process = subprocess.Popen(
            [sys.executable, "-m", "neows_async", *arguments],
            cwd=tmp_path,
            env=program.clean_environment(NASA_API_KEY=KEY),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert asked_for_more.wait(program.LIMIT_S)
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=program.LIMIT_S)  # it does not wait for the response
        go_on.set()
        assert process.returncode == code, err
        assert "run the same command again to resume" in err
        assert nothing_visible(tmp_path)
        before = len(server.asked)
        ended = run(tmp_path, server.url)
        assert "resuming snapshot" in ended.err
        assert sorted(server.pages[before:]) == [2]
    assert ended.code == 0


def test_budget_pauses_and_the_same_command_resumes(tmp_path: Path) -> None:
    with loopback.serving(loopback.browse(catalogue(200))) as server:
        ended = [run(tmp_path, server.url, "--budget", "4") for _ in range(3)]
    assert [one.code for one in ended] == [75, 75, 0], ended[0].err
    assert "the budget of 4 requests is spent; run the same command again at 20" in ended[0].last_line
    assert sorted(server.pages) == list(range(10)), "no page is fetched twice"
    assert "resuming snapshot" in ended[1].err
    assert "200 near-Earth objects" in ended[2].out


def test_spent_quota_pauses_and_records_when_to_resume(tmp_path: Path) -> None:
    def answer(_: Asked) -> Answer:
        return Answer(
            b'{"error":{"code":"OVER_RATE_LIMIT"}}', 429, {"Retry-After": "2870", "X-RateLimit-Limit": "1000"}
        )

    with loopback.serving(answer) as server:
        before_s = time.time()
        ended = run(tmp_path, server.url, "--max-wait", "1m", "--retry-budget", "30s")
    assert ended.code == 75
    [begun] = (tmp_path / "lake/_staging").glob("*/run.json")
    resume_at = json.loads(begun.read_bytes())["resume_at"]
    assert dt.datetime.fromisoformat(resume_at).timestamp() >= before_s + 2_870
    assert len(server.asked) == 1


def forms_of(key: str) -> list[bytes]:
    raw = key.encode()
    encoded = [base64.b64encode(b"\0" * before + raw).rstrip(b"=") for before in range(3)]
    middles = [code[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6] for before, code in enumerate(encoded)]
    return [raw, quote(key, safe="").encode(), "".join(f"%{byte:02X}" for byte in raw).encode(), *middles]


def leaks(key: str, folder: Path, *texts: str) -> list[str]:
    found = [text for text in texts for form in forms_of(key) if form in text.encode()]
    for file in folder.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            if file.suffix == ".zst":
                import zstandard  # noqa: PLC0415

                data = zstandard.ZstdDecompressor().decompress(data)
            found += [str(file) for form in forms_of(key) if form in data]
    return found


@pytest.mark.parametrize("kind", ["hexadecimal", "url-safe", "awkward"])
def test_key_is_in_no_file_and_no_output(tmp_path: Path, kind: str) -> None:
    key = {
        "hexadecimal": secrets.token_hex(20),
        "url-safe": secrets.token_urlsafe(30),
        "awkward": "a+b/c=d&e'f" + secrets.token_hex(9),
    }[kind]
    good = loopback.browse(catalogue(60))

    def answer(asked: Asked) -> Answer:
        body = good(asked).body
        echo = (
            f'"x": "{quote(key, safe="")} {base64.b64encode(key.encode()).decode()} ' + json.dumps(key)[1:]
        ).encode()
        times = server.pages.count(asked.page)
        if asked.page == 1 and times == 1:
            return Answer(body[:-40])
        if asked.page == 1 and times == 2:
            return Answer(b'{"request": "?api_key=' + key.encode() + b'"}', 500)
        return Answer(body.replace(b'"is_sentry_object"', echo + b', "is_sentry_object"'))

    with loopback.serving(answer) as server:
        arguments: Mapping[str, Any] = {"NASA_API_KEY": key}
        ended = program.run(
            tmp_path,
            *("run", "--base-url", server.url, "--root", "lake", "--log-format", "json", "--retry-budget", "20s"),
            **arguments,
        )
        assert ended.code == 0, ended.err
        assert {asked.key for asked in server.asked} == {key}
        assert not leaks(key, tmp_path, ended.out, ended.err)

        def refuse(asked: Asked) -> Answer:
            return Answer(b'{"error": {"code": "API_KEY_INVALID", "key": "' + str(asked.key).encode() + b'"}}', 403)

    with loopback.serving(refuse) as server:
        ended = program.run(tmp_path, "run", "--base-url", server.url, "--root", "other", NASA_API_KEY=key)
    assert ended.code == 77
    assert not leaks(key, tmp_path, ended.out, ended.err)


def test_short_key_is_not_redacted_inside_names(tmp_path: Path) -> None:
    with loopback.serving(loopback.browse([neo(1, [approach()], name="xerxes (x)")])) as server:
        ended = run(tmp_path, server.url, "--snapshot", "a", NASA_API_KEY="x")
    assert ended.code == 0, ended.err
    rows = rows_of(f"{tmp_path}/lake/neos/snapshot=a/*.parquet", "name, designation")
    assert rows == [("xerxes (x)", "1 TEST")]
