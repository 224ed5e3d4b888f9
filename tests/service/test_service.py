"""The example service as a process on loopback, compared with plain Python over the files of its lake."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx
import pyarrow.parquet as pq
import pytest
from neo_site.config import Config
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from tests import loopback
from tests.neos import catalogue
from tests.service import browser
from tests.service.site import Site, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from prometheus_client.samples import Sample

Row = dict[str, Any]
KEY = "k3yk3yk3yk3yk3yk3yk3yk3yk3yk3yk3yk3yk3y0"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def site(lake: Path) -> Iterator[Site]:
    """A site with a committed catalogue of 300 synthetic objects."""
    with running(lake, SANDBOX_NEOS="300") as site:
        site.until("serving snapshot")
        yield site


@pytest.fixture(scope="module")
def neos(site: Site, lake: Path) -> list[Row]:
    return rows(site, lake, "neos")


@pytest.fixture(scope="module")
def approaches(site: Site, lake: Path) -> list[Row]:
    return rows(site, lake, "close_approaches")


def rows(site: Site, lake: Path, dataset: str) -> list[Row]:
    """The rows in the lake of the snapshot that the site serves."""
    snapshot = site.get("/health")["catalogue"]["snapshot"]
    [file] = (lake / "sandbox" / dataset / f"snapshot={snapshot}").iterdir()
    found: list[Row] = pq.ParquetFile(file).read().to_pylist()
    return found


QUERIES: list[tuple[dict[str, Any], Callable[[Row], bool], str]] = [
    ({}, lambda _: True, "closest_approach_miss_distance_km"),
    ({"hazardous": "true", "sort": "name"}, lambda neo: neo["is_potentially_hazardous_asteroid"], "name"),
    (
        {"min_h": 18, "max_h": 22, "sort": "-h"},
        lambda neo: 18 <= neo["absolute_magnitude_h"] <= 22,
        "-absolute_magnitude_h",
    ),
    (
        {"min_diameter_m": 100, "max_diameter_m": 300, "sort": "diameter"},
        lambda neo: neo["estimated_diameter_max_m"] >= 100 and neo["estimated_diameter_min_m"] <= 300,
        "estimated_diameter_max_m",
    ),
    (
        {"min_miss_km": 1e6, "max_miss_km": 5e6, "sort": "-velocity"},
        lambda neo: 1e6 <= (neo["closest_approach_miss_distance_km"] or 0) <= 5e6,
        "-closest_approach_relative_velocity_km_s",
    ),
    ({"q": "DUN", "sort": "date"}, lambda neo: "dun" in neo["name"].lower(), "closest_approach_date"),
]


@pytest.mark.parametrize(
    ("parameters", "matches", "sort"), QUERIES, ids=["all", "hazardous", "h", "diameter", "miss", "q"]
)
def test_neos_are_filtered_sorted_and_paged(
    site: Site, neos: list[Row], parameters: dict[str, Any], matches: Callable[[Row], bool], sort: str
) -> None:
    column = sort.removeprefix("-")
    known = [neo for neo in neos if matches(neo) and neo[column] is not None]
    known.sort(key=lambda neo: neo[column], reverse=sort.startswith("-"))
    expected = [neo["id"] for neo in [*known, *(neo for neo in neos if matches(neo) and neo[column] is None)]]
    assert len(expected) > 0
    received: list[str] = []
    path: str | None = str(httpx.URL("/neos", params={**parameters, "limit": 37}))
    for first in range(0, len(expected), 37):
        assert path is not None
        page = site.get(path)
        assert (page["total"], page["offset"]) == (len(expected), first)
        received += [neo["id"] for neo in page["neos"]]
        path = page["next"]
    assert path is None
    assert received == expected


def test_neo_has_all_its_approaches(site: Site, neos: list[Row], approaches: list[Row]) -> None:
    most, _ = Counter(one["neo_id"] for one in approaches).most_common(1)[0]
    [neo] = (neo for neo in neos if neo["id"] == most)
    report = site.get(f"/neos/{most}")
    its = report.pop("close_approaches")
    assert report.pop("snapshot")
    assert report == {name: str(neo[name]) if name.endswith("_date") else neo[name] for name in report}
    assert its == [
        {
            **{name: one[name] for name in ("orbiting_body", "miss_distance_au", "miss_distance_km")},
            "relative_velocity_km_s": one["relative_velocity_km_s"],
            "close_approach_date": one["close_approach_date"].isoformat(),
            "close_approach_at": one["close_approach_at"].strftime("%Y-%m-%dT%H:%MZ"),
        }
        for one in approaches
        if one["neo_id"] == most
    ]


def test_aggregates_match_the_rows(site: Site, neos: list[Row], approaches: list[Row]) -> None:
    report = site.get("/aggregates")
    by_year = Counter(one["close_approach_date"].year for one in approaches)
    years = range(min(by_year), max(by_year) + 1)
    assert report["close_approaches_by_year"]["count_by_year"] == {
        str(year): by_year[year] for year in years if by_year[year]
    }
    assert report["close_approaches_within"] == {
        "threshold_au": 0.2,
        "orbiting_body": None,
        "neos": len(neos),
        "close_approaches": len(approaches),
        "count": sum(one["miss_distance_au"] < 0.2 for one in approaches),
    }


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("limit=201", "limit: input should be less than or equal to 200, not '201'"),
        ("limit=many", "limit: input should be a valid integer, unable to parse string as an integer, not 'many'"),
        ("offset=-1", "offset: input should be greater than or equal to 0, not '-1'"),
        ("min_h=nan", "min_h: input should be a finite number, not 'nan'"),
        ("sort=id;drop", "sort: input should be 'name', '-name', 'h', "),
        ("hazardous=perhaps", "hazardous: input should be a valid boolean"),
        ("colour=red", "there is no parameter 'colour'"),
    ],
)
def test_invalid_parameter_is_one_line(site: Site, query: str, reason: str) -> None:
    response = site.client.get(f"/neos?{query}")
    assert response.status_code == 422
    line = response.json()["error"]
    assert line.startswith(reason)
    assert "\n" not in line


@pytest.mark.parametrize("path", ["/neos/0", "/neos/%27%20OR%201=1", "/nothing"])
def test_unknown_paths_and_objects_are_404(site: Site, path: str) -> None:
    response = site.client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]


def test_health_and_metrics_describe_the_catalogue_and_the_refresh(site: Site, neos: list[Row]) -> None:
    assert site.get("/health/live") == {"status": "live"}
    report = site.get("/health/ready")
    assert report["status"] == "ready"
    assert report["catalogue"]["neos"] == len(neos) == 300
    assert report["catalogue"]["synthetic"] is True
    assert report["catalogue"]["age_s"] >= 0
    assert report["refresh"]["last"]["outcome"] == "committed"
    assert report["refresh"]["pages_fetched"] == report["refresh"]["pages"] == 15
    figures = samples(site)
    assert figures["neows_neos_written_total", ""] == 300
    assert figures["neows_runs_total", "committed"] == 1
    assert figures["neo_site_request_duration_seconds_count", "/health/live"] >= 1
    assert ("neo_site_request_duration_seconds_count", "/neos/0") not in figures


def samples(site: Site) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(site.client.get("/metrics").text)
    return {_key(sample): sample.value for family in families for sample in family.samples}


def _key(sample: Sample) -> tuple[str, str]:
    return sample.name, sample.labels.get("outcome", sample.labels.get("route", ""))


@pytest.mark.skipif(browser.PROGRAM is None, reason="there is no chromium, chromium-browser or google-chrome")
def test_page_shows_sorts_and_filters_in_a_browser(site: Site, neos: list[Row], tmp_path: Path) -> None:
    hazardous = sum(neo["is_potentially_hazardous_asteroid"] for neo in neos)
    with browser.browsing(tmp_path) as tab:
        for width, dark in ((1400, False), (400, True)):
            tab.go(site.url, width=width, dark=dark)
            tab.until(
                "document.querySelectorAll('#neos tbody tr').length === 20 && document.querySelector('#chart svg')"
            )
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
            tab.until("document.getElementById('f-neos').textContent === '300'")
            assert tab.evaluate("document.getElementById('f-hazardous').textContent") == str(hazardous)
            assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == (
                "rgb(15, 18, 24)" if dark else "rgb(246, 247, 249)"
            )
            years = site.get("/aggregates")["close_approaches_by_year"]["count_by_year"]
            assert tab.evaluate("document.querySelectorAll('#chart rect').length") == len(years)
        tab.go(site.url)
        tab.until("document.querySelectorAll('#neos tbody tr').length === 20")
        name = "document.querySelector('#neos tbody button').textContent"
        tab.evaluate("document.querySelector('#neos thead button').click()")
        tab.until("document.querySelector('#neos th').getAttribute('aria-sort') === 'ascending'")
        assert tab.evaluate(name) == min(neo["name"] for neo in neos)
        tab.evaluate("document.querySelector('#neos thead button').click()")
        tab.until("document.querySelector('#neos th').getAttribute('aria-sort') === 'descending'")
        assert tab.evaluate(name) == max(neo["name"] for neo in neos)
        tab.evaluate(
            "{ const chosen = document.querySelector('[name=hazardous]'); chosen.value = 'true';"
            " chosen.dispatchEvent(new Event('input', { bubbles: true })); }"
        )
        tab.until(f"document.getElementById('n-count').textContent.startsWith('{hazardous} objects')")
        tab.evaluate("document.querySelector('#neos tbody button').click()")
        tab.until(
            "document.getElementById('detail').open && document.querySelectorAll('#d-approaches tbody tr').length"
        )
        assert tab.evaluate("document.activeElement.id") == "d-close"
        assert {httpx.URL(url).host for url in tab.requested if not url.startswith("data:")} == {"127.0.0.1"}
        assert tab.problems == []


class Stuck:
    """A source that responds to ``after`` requests, and then waits until the test continues it."""

    def __init__(self, after: int, neos: int) -> None:
        self.stuck, self.go_on = threading.Event(), threading.Event()
        self._good = loopback.browse(catalogue(neos))
        self._after = after
        self._answered = 0
        self._one = threading.Lock()

    def __call__(self, request: loopback.Asked) -> loopback.Answer:
        with self._one:
            self._answered += 1
            late = self._answered > self._after
        if late:
            self.stuck.set()
            self.go_on.wait(60)
        return self._good(request)


def test_sigterm_during_a_fetch_ends_the_site_and_the_next_start_resumes(
    tmp_path: Path,
) -> None:
    source = Stuck(after=4, neos=200)
    with loopback.serving(source) as server:
        given = {"NASA_API_KEY": KEY, "BASE_URL": server.url}
        with running(tmp_path, **given) as site:
            assert source.stuck.wait(60)
            for path in ("/neos", "/neos/1", "/aggregates", "/health/ready"):
                response = site.client.get(path)
                assert response.status_code == 503, path
                assert path == "/health/ready" or int(response.headers["Retry-After"]) >= 1
            assert site.get("/health/live")
            assert site.get("/health")["status"] == "starting"
            with hammering(site.url):
                assert site.stop() == -signal.SIGTERM
            assert "Traceback" not in "".join(site.lines)
        source.go_on.set()
        stored_pages = len(list((tmp_path / "nasa/raw").rglob("page=*.zst")))
        asked_before = len(server.asked)
        assert stored_pages >= 1
        with running(tmp_path, **given) as site:
            site.until("serving snapshot")
            assert site.get("/neos")["total"] == 200
            assert len(server.asked) - asked_before == 10 - stored_pages
            assert KEY not in "".join(site.lines) + site.client.get("/health").text + site.client.get("/metrics").text


class hammering:  # noqa: N801 - it reads as what it does
    """Send requests from several threads until the server is gone."""

    def __init__(self, url: str, threads: int = 4) -> None:
        self._url = url
        self._begun = threading.Barrier(threads + 1)
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=10, trust_env=False) as client:
            client.get("/health/live")
            self._begun.wait(60)
            try:
                while True:
                    client.get("/health")
            except httpx.TransportError:
                return

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()
        self._begun.wait(60)

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(60)


def test_failed_refresh_leaves_the_catalogue_and_prunes_old_ones(tmp_path: Path) -> None:
    good, refused = loopback.browse(catalogue(45)), threading.Event()

    def respond(request: loopback.Asked) -> loopback.Answer:
        return loopback.Answer(b"{}", 403) if refused.is_set() else good(request)

    with loopback.serving(respond) as server:
        given = {"NASA_API_KEY": KEY, "BASE_URL": server.url, "REFRESH_EVERY_S": "0.01", "KEEP": "2"}
        with running(tmp_path, RETRY_AFTER_S="3600", **given) as site:
            site.until("serving snapshot", times=4)
            refused.set()
            site.until("refresh failed")
            report = site.get("/health")
            assert report["refresh"]["last"]["outcome"] == "failed"
            assert "refused the key" in report["refresh"]["last"]["reason"]
            assert site.get("/neos", limit=1)["total"] == 45
            served = [line.split("snapshot ")[1].split(":")[0] for line in site.lines if "serving snapshot" in line]
            assert report["catalogue"]["snapshot"] == served[-1]
            assert all(one != other for one, other in pairwise(served))
            assert site.stop() == -signal.SIGTERM
    assert {path.name for path in (tmp_path / "nasa/neos").iterdir()} == {f"snapshot={one}" for one in served[-2:]}


def test_unreadable_lake_is_reported_and_retried(tmp_path: Path) -> None:
    latest = tmp_path / "sandbox/_runs/latest.json"
    latest.parent.mkdir(parents=True)
    latest.write_text("{")
    with running(tmp_path, SANDBOX_NEOS="20", RETRY_AFTER_S="0.1") as site:
        site.until("refresh failed", times=2)
        last = site.get("/health")["refresh"]["last"]
        assert last["outcome"] == "failed"
        assert last["reason"].endswith("latest.json is damaged; restore it, or move it away")
        latest.unlink()
        site.until("serving snapshot")
        assert site.get("/neos")["total"] == 20
        assert "Traceback" not in "".join(site.lines)


@pytest.mark.skipif(browser.PROGRAM is None, reason="there is no chromium, chromium-browser or google-chrome")
def test_page_reports_a_dead_server_and_follows_a_shrinking_catalogue(tmp_path: Path) -> None:
    objects = catalogue(45)

    def respond(request: loopback.Asked) -> loopback.Answer:
        return loopback.browse(objects)(request)  # the current objects

    with loopback.serving(respond) as source, browser.browsing(tmp_path) as tab:
        given = {"NASA_API_KEY": KEY, "BASE_URL": source.url, "REFRESH_EVERY_S": "0.01"}
        with running(tmp_path / "lake", **given) as site:
            site.until("serving snapshot")
            tab.go(site.url)
            rows = "document.querySelectorAll('#neos tbody tr').length"
            for shown in (20, 5):
                tab.until("!document.getElementById('on').disabled")
                tab.evaluate("document.getElementById('on').click()")
                tab.until(f"{rows} === {shown}")
            del objects[20:]
            tab.until("document.getElementById('n-page').textContent === '1 \u2013 20 of 20'")
        tab.evaluate("document.querySelector('#neos tbody button').click()")
        tab.until("document.getElementById('wrong').textContent.startsWith('This site does not respond')")


def test_unknown_setting_is_refused_and_the_key_is_hidden() -> None:
    with pytest.raises(ValidationError, match="refresh_evry_s"):
        Config.from_environment({"NEO_SITE_REFRESH_EVRY_S": "5"})
    config = Config.from_environment({"NASA_API_KEY": KEY, "NEO_SITE_LIMIT": "20", "PATH": "/bin"})
    assert config.settings().limit == 20
    assert not config.synthetic
    assert KEY not in f"{config!r} {config.settings()!r}"
