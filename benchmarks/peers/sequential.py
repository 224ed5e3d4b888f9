"""The sequential design: requests, pydantic, one Parquet file a dataset at the end. ``sequential.py URL PAGES OUT``.

One request after the other, every object validated by a model, everything held until it is written.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import requests
from pydantic import BaseModel


class Velocity(BaseModel):
    kilometers_per_second: float


class Distance(BaseModel):
    astronomical: float
    kilometers: float


class Approach(BaseModel):
    close_approach_date: str
    epoch_date_close_approach: int
    orbiting_body: str
    relative_velocity: Velocity
    miss_distance: Distance


class Neo(BaseModel):
    id: str
    name: str
    close_approach_data: list[Approach]


def main(url: str, pages: int, out: Path) -> None:
    neos, approaches = [], []
    within, by_year = 0, Counter[str]()
    with requests.Session() as session:
        session.trust_env = False
        for number in range(pages):
            answer = session.get(f"{url}/neo/rest/v1/neo/browse", params={"page": number, "size": 20}, timeout=60)
            answer.raise_for_status()
            for value in answer.json()["near_earth_objects"]:
                neo = Neo.model_validate(value)
                closest = min(neo.close_approach_data, key=lambda entry: entry.miss_distance.kilometers, default=None)
                neos.append({"id": neo.id, "name": neo.name, "km": closest and closest.miss_distance.kilometers})
                for entry in neo.close_approach_data:
                    within += entry.miss_distance.astronomical < 0.2  # noqa: PLR2004 - the threshold of ours
                    by_year[entry.close_approach_date[:4]] += 1
                    approaches.append(
                        {
                            "neo_id": neo.id,
                            "date": entry.close_approach_date,
                            "au": entry.miss_distance.astronomical,
                            "km": entry.miss_distance.kilometers,
                            "km_s": entry.relative_velocity.kilometers_per_second,
                        }
                    )
    out.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(neos), out / "neos.parquet")
    pq.write_table(pa.Table.from_pylist(approaches), out / "close_approaches.parquet")
    (out / "aggregates.json").write_text(json.dumps({"within": within, "by_year": dict(by_year)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
