from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from neows_async.lake.layout import dataset_folder
from neows_async.lake.storage.local import LocalStorage
from neows_async.outputs import registry
from neows_async.outputs.aggregate_files import CsvAggregates, JsonAggregates
from neows_async.pipeline.run import Parts, ingest
from neows_async.settings import Settings
from neows_async.testing import AggregatorConformance, ListSource
from tests.neos import catalogue, neo

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {"sinks": registry.SINKS, "aggregators": registry.AGGREGATORS, "aggregate writers": registry.AGGREGATE_WRITERS}


def made(parts: tuple[registry.RegisteredPart, ...], settings: Settings) -> list[Any]:
    found = [part.make(settings) for part in parts]
    return [one for entry in found for one in (entry if isinstance(entry, list) else [entry])]


@pytest.mark.parametrize("kind", KINDS)
def test_each_name_is_given_once_and_one_part_is_the_default(kind: str) -> None:
    names = [part.name for part in KINDS[kind]]
    assert len(set(names)) == len(names)
    assert registry.defaults(KINDS[kind])
    assert set(registry.defaults(KINDS[kind])) <= set(names)


def test_a_part_has_the_names_that_receipts_give_it() -> None:
    settings = Settings()
    for part in (*registry.SINKS, registry.QUARANTINE, *registry.AGGREGATORS):
        assert tuple(one.name for one in made((part,), settings)) == part.in_receipts
    for part in registry.AGGREGATE_WRITERS:
        assert (type(part.make(settings)).__name__,) == part.in_receipts
        assert registry.find(registry.AGGREGATE_WRITERS, part.in_receipts[0]) is part
    assert registry.find(registry.AGGREGATORS, "mine") is None


def test_parts_are_made_with_the_settings_of_the_run() -> None:
    settings = Settings(within_au=0.05, orbiting_body="Venus")
    by_name = {aggregator.name: aggregator for aggregator in made(registry.AGGREGATORS, settings)}
    within, by_year = by_name["close_approaches_within"], by_name["close_approaches_by_year"]
    assert (within.result()["threshold_au"], within.result()["orbiting_body"]) == (0.05, "Venus")
    assert by_year.result()["orbiting_body"] == "Venus"


@pytest.mark.parametrize("part", registry.AGGREGATORS, ids=lambda part: part.name)
def test_our_aggregators_conform(part: registry.RegisteredPart) -> None:
    class OfPart(AggregatorConformance):
        def make(self) -> Any:
            return part.make(Settings())

    suite = OfPart()
    for name in dir(suite):
        if name.startswith("test_"):
            getattr(suite, name)()


@pytest.mark.parametrize("writer", [JsonAggregates(), CsvAggregates()])
@pytest.mark.parametrize("partitions", [(), ("neos:is_potentially_hazardous_asteroid",)])
async def test_the_patterns_fit_every_file_of_a_run(tmp_path: Path, writer: Any, partitions: tuple[str, ...]) -> None:
    settings = Settings(snapshot="a", partition_by=partitions)
    parts = Parts(
        storage=LocalStorage(tmp_path),
        source=ListSource([*catalogue(30), neo(30, name="")]),
        source_name="test",
        sinks=made(registry.SINKS, settings),
        aggregators=made(registry.AGGREGATORS, settings),
        aggregate_writer=writer,
    )
    receipt = await ingest(settings, parts)
    patterns = registry.file_patterns()
    assert {file.dataset for file in receipt.files} == set(patterns)
    for file in receipt.files:
        path = file.path.removeprefix(f"{dataset_folder(file.dataset, 'a')}/")
        assert re.fullmatch(patterns[file.dataset], path), file.path
    for other in ("mine.json", "close_approaches_within.txt", "close_approaches_within.json.bak"):
        assert not re.fullmatch(patterns["aggregates"], other)


def test_the_registry_loads_no_part() -> None:
    code = "import sys, neows_async.outputs.registry as r; r.file_patterns(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in loaded if name.startswith("neows_async")}
    assert ours == {"neows_async", "neows_async.outputs", "neows_async.outputs.registry"}
    assert "pyarrow" not in loaded
