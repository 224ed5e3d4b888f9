"""dlt as its documentation shows it, with flattened rows: ``with_dlt.py URL PAGES OUT``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
from dlt.destinations import filesystem
from dlt.sources.helpers import requests


def main(url: str, pages: int, out: Path) -> None:
    def read() -> Iterator[list[dict[str, Any]]]:
        for number in range(pages):
            answer = requests.get(f"{url}/neo/rest/v1/neo/browse", params={"page": number, "size": 20})
            yield answer.json()["near_earth_objects"]

    @dlt.resource(name="pages", selected=False)
    def objects() -> Iterator[list[dict[str, Any]]]:
        yield from read()

    @dlt.transformer(data_from=objects, name="neos")
    def neos(items: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        yield [
            {
                "id": item["id"],
                "name": item["name"],
                "km": min(
                    (float(one["miss_distance"]["kilometers"]) for one in item["close_approach_data"]), default=None
                ),
            }
            for item in items
        ]

    @dlt.transformer(data_from=objects, name="close_approaches")
    def approaches(items: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        yield [
            {
                "neo_id": item["id"],
                "date": one["close_approach_date"],
                "au": float(one["miss_distance"]["astronomical"]),
                "km": float(one["miss_distance"]["kilometers"]),
                "km_s": float(one["relative_velocity"]["kilometers_per_second"]),
            }
            for item in items
            for one in item["close_approach_data"]
        ]

    source = objects()
    pipeline = dlt.pipeline(
        pipeline_name="peer",
        pipelines_dir=str(out / "state"),
        destination=filesystem(bucket_url=out.absolute().as_uri()),
        dataset_name="lake",
    )
    pipeline.run([source | neos, source | approaches], loader_file_format="parquet")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
