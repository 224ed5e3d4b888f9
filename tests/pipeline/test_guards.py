from __future__ import annotations

from typing import Any

import pytest

from neows_async.errors import PartError
from neows_async.pipeline.guards import check_names
from neows_async.testing import ListSource


class Named:
    name = "mine"

    def merge(self, other: Any) -> None: ...

    def result(self) -> dict[str, Any]:
        return {}


class Updating(Named):
    def update(self, batches: Any) -> None: ...


class UpdatingJson(Named):
    needs_json = True

    def update_json(self, batches: Any, objects: Any) -> None: ...


class OnlyJson(Named):
    def update_json(self, batches: Any, objects: Any) -> None: ...


class OnlyUpdate(Updating):
    needs_json = True


class TooFewParameters(UpdatingJson):
    def update_json(self, batches: Any) -> None: ...  # type: ignore[override]  # as a user may write it


class TooManyParameters(Updating):
    def update(self, number: int, batches: Any) -> None: ...  # type: ignore[override]  # as above


class WrittenInC(Updating):
    update: Any = {}.update  # inspect finds no signature


class Async(Updating):
    async def update(self, batches: Any) -> None: ...  # type: ignore[override]  # as above


@pytest.mark.parametrize("kind", [Updating, UpdatingJson, WrittenInC])
def test_an_aggregator_with_the_right_method_is_accepted(kind: type[Any]) -> None:
    check_names(ListSource([]), aggregators=[kind()])


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (Named, "update(batches)"),
        (OnlyJson, "update(batches)"),
        (TooManyParameters, "update(batches)"),
        (OnlyUpdate, "update_json(batches, objects)"),
        (TooFewParameters, "update_json(batches, objects)"),
    ],
)
def test_an_aggregator_without_the_right_method_ends_the_run_before_it_begins(kind: type[Any], method: str) -> None:
    with pytest.raises(PartError) as caught:
        check_names(ListSource([]), aggregators=[kind()])
    assert str(caught.value) == f"the aggregator mine has no method {method}; see neows_async.Aggregator"


def test_an_aggregator_with_an_async_method_ends_the_run_before_it_begins() -> None:
    aggregator: Any = Async()
    with pytest.raises(PartError, match=r"^update\(batches\) of the aggregator mine must not be async"):
        check_names(ListSource([]), aggregators=[aggregator])
