from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from neows_async.endpoints.browse import envelope
from neows_async.errors import SettingsError
from neows_async.sandbox.catalogue import Catalogue, ChangingCatalogue, RecordedPages, SyntheticCatalogue
from neows_async.sandbox.page_json import BrowseRequest, browse_page
from neows_async.sandbox.scenario import Change

if TYPE_CHECKING:
    from pathlib import Path


def request_for(number: int, size: int = 20) -> BrowseRequest:
    return BrowseRequest(number, size, "api.nasa.gov", "DEMO_KEY")


def ids(catalogue: Catalogue) -> list[str]:
    return [entry.id for entry in catalogue.entries(0, catalogue.total)]


def write_page(file: Path, objects: list[Any]) -> None:
    page = {"size": 2, "total_elements": 5, "total_pages": 3, "number": 0}
    body = json.dumps({"links": {}, "page": page, "near_earth_objects": objects}).encode()
    if file.suffix == ".gz":
        body = gzip.compress(body)
    elif file.suffix == ".zst":
        body = zstandard.ZstdCompressor().compress(body)
    file.write_bytes(body)


def test_recorded_pages_are_served_byte_for_byte(recorded_pages: Path) -> None:
    catalogue = RecordedPages(recorded_pages, announced_total=41_282)
    for number in range(10):
        recorded = gzip.decompress((recorded_pages / f"page_{number:05}.json.gz").read_bytes())
        assert browse_page(catalogue, request_for(number)) == recorded


def test_total_is_the_number_of_recorded_objects(recorded_pages: Path) -> None:
    catalogue = RecordedPages(recorded_pages)
    assert catalogue.total == 200
    assert len(set(ids(catalogue))) == 200
    page = json.loads(browse_page(catalogue, request_for(66, 3)))
    assert page["page"] == {"size": 3, "total_elements": 200, "total_pages": 67, "number": 66}
    assert [entry["id"] for entry in page["near_earth_objects"]] == ids(catalogue)[198:]


@pytest.mark.parametrize(
    "name", ["page_00000.json", "page_00000.json.gz", "page_00000.json.zst", "page=00000.json.zst"]
)
def test_recorded_pages_of_every_format_and_length_are_read(tmp_path: Path, name: str) -> None:
    write_page(tmp_path / name, [{"links": {"self": "x?api_key=old"}, "id": "1", "n": 1.50}, {"id": "2"}])
    write_page(tmp_path / "page_00001.json", [])
    write_page(tmp_path / "page_00002.json", [{"neo_reference_id": "3", "name": "é"}])
    (tmp_path / "README.md").write_text("not a page")
    catalogue = RecordedPages(tmp_path)
    assert ids(catalogue) == ["1", "2", "3"]
    assert catalogue.entries(0, 1)[0].body == b'{"id":"1","n":1.5}'
    assert [entry.id for entry in catalogue.entries(1, 9)] == ["2", "3"]


def test_invalid_objects_are_served_unchanged(tmp_path: Path) -> None:
    text = (
        '{"page":{"size":9,"total_elements":4,"number":0},"near_earth_objects":[{},{"id":7},null,{"id":"4","h":NaN}]}'
    )
    (tmp_path / "page_0.json").write_text(text)
    page = browse_page(RecordedPages(tmp_path), request_for(0))
    _, objects = envelope.split(page)
    assert objects[0] == b'{"links":{"self":"http://api.nasa.gov/neo/rest/v1/neo/?api_key=DEMO_KEY"}}'
    assert objects[1].endswith(b'"id":7}')
    assert objects[2] == b"null"
    assert objects[3].endswith(b'{"id":"4","h":NaN}') or objects[3].endswith(b'"id":"4","h":NaN}')


def test_invalid_recorded_pages_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        RecordedPages(tmp_path / "none")
    with pytest.raises(SettingsError, match="has no page_NNNNN"):
        RecordedPages(tmp_path)
    write_page(tmp_path / "page_00001.json", [])
    with pytest.raises(SettingsError, match="numbered 0 to 0"):
        RecordedPages(tmp_path)
    for name, content in (
        ("page_00000.json.zst", b"no"),
        ("page_00000.json.gz", b"no"),
        ("page_00000.json", b"{}"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SettingsError, match=rf"{name} is not a recorded Browse page") as caught:
            RecordedPages(tmp_path)
        assert "\n" not in str(caught.value)
        (tmp_path / name).unlink()


def test_synthetic_catalogue_size_is_limited_by_the_ids() -> None:
    assert SyntheticCatalogue(0).entries(0, 20) == []
    for neos in (-1, 10_000_000):
        with pytest.raises(SettingsError, match="0 to 9,000,000"):
            SyntheticCatalogue(neos)


@pytest.mark.parametrize(("total", "size", "pages"), [(0, 20, 0), (1, 20, 1), (40, 20, 2), (41, 20, 3), (7, 2, 4)])
def test_pages_hold_their_objects_and_totals(total: int, size: int, pages: int) -> None:
    catalogue = SyntheticCatalogue(total)
    found = []
    for number in range(pages + 2):
        page = json.loads(browse_page(catalogue, request_for(number, size)))
        assert page["page"] == {"size": size, "total_elements": total, "total_pages": pages, "number": number}
        assert ("next" in page["links"]) == (number + 1 < pages)
        assert ("prev" in page["links"]) == (number > 0)
        found += [entry["id"] for entry in page["near_earth_objects"]]
    assert found == ids(catalogue)


def test_every_link_holds_the_clients_key() -> None:
    page = browse_page(SyntheticCatalogue(60), BrowseRequest(1, 20, "h:1", "k+/ é"))
    assert page.count(b"api_key=k%2B%2F%20%C3%A9") == 23
    assert json.loads(page)["links"]["next"].startswith("http://h:1/neo/rest/v1/neo/browse?page=2&size=20&api_key=")


def test_changes_add_remove_and_shuffle_objects() -> None:
    base = SyntheticCatalogue(10)
    changes = [
        Change(after_requests=2, add=2, position=1),
        Change(after_s=60.0, remove=3),
        Change(after_requests=4, shuffle=True),
    ]
    changing = ChangingCatalogue(base, changes, seed=5)
    before = changing.view(1, 0)
    grown = changing.view(2, 1)
    shrunk = changing.view(3, 61)
    shuffled = changing.view(4, 61)
    old = ids(base)
    assert ids(before) == old
    assert ids(grown)[0] == old[0]
    assert ids(grown)[3:] == old[1:]
    assert not set(ids(grown)[1:3]) & set(old)
    assert ids(shrunk) == ids(grown)[3:]
    assert sorted(ids(shuffled)) == sorted(ids(shrunk)) != ids(shuffled)
    again = ChangingCatalogue(base, changes, seed=5).view(9, 99)
    assert ids(again) == ids(shuffled)
    assert ids(grown)[3:] == old[1:]  # a view does not change
