"""Make SQL from the parameters of ``/neos``. Pure. No text of a request becomes part of the SQL."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_LIMIT: Final = 200
_Size = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
_Magnitude = Annotated[float, Field(ge=-50, le=100, allow_inf_nan=False)]

_COLUMNS: Final = {
    "name": "name",
    "h": "absolute_magnitude_h",
    "diameter": "estimated_diameter_max_m",
    "miss": "closest_approach_miss_distance_km",
    "date": "closest_approach_date",
    "velocity": "closest_approach_relative_velocity_km_s",
}
Sort = Literal[
    "name", "-name", "h", "-h", "diameter", "-diameter", "miss", "-miss", "date", "-date", "velocity", "-velocity"
]  # fmt: skip

# As in SQL, an object without a value is in no range.
_CONDITIONS: Final = {
    "q": "contains(lower(name), lower(?))",
    "hazardous": "is_potentially_hazardous_asteroid = ?",
    "min_h": "absolute_magnitude_h >= ?",
    "max_h": "absolute_magnitude_h <= ?",
    "min_diameter_m": "estimated_diameter_max_m >= ?",
    "max_diameter_m": "estimated_diameter_min_m <= ?",
    "min_miss_km": "closest_approach_miss_distance_km >= ?",
    "max_miss_km": "closest_approach_miss_distance_km <= ?",
}


class NeoQuery(BaseModel):
    """The parameters of ``/neos``.

    :param q: a part of the name
    :param min_diameter_m: an object matches if the range of its estimated diameter overlaps the requested one
    :param min_miss_km: the miss distance of the closest approach
    :param sort: ascending, or descending with ``-``; objects without a value are last, equal ones in Browse order
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    q: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    hazardous: bool | None = None
    min_h: _Magnitude | None = None
    max_h: _Magnitude | None = None
    min_diameter_m: _Size | None = None
    max_diameter_m: _Size | None = None
    min_miss_km: _Size | None = None
    max_miss_km: _Size | None = None
    sort: Sort = "miss"
    limit: int = Field(50, ge=1, le=MAX_LIMIT)
    offset: int = Field(0, ge=0, le=1_000_000)

    def where(self) -> tuple[str, list[Any]]:
        """The condition and its values."""
        given = {name: value for name in _CONDITIONS if (value := getattr(self, name)) is not None}
        return " AND ".join(_CONDITIONS[name] for name in given) or "true", list(given.values())

    def order(self) -> str:
        """The expression after ``ORDER BY``."""
        direction = "DESC" if self.sort.startswith("-") else "ASC"
        return f"{_COLUMNS[self.sort.removeprefix('-')]} {direction} NULLS LAST, position"
