"""Our storages keep the promises of every storage, and their errors are one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from neows_async.errors import NotFoundError, SnapshotHeldError, StorageError
from neows_async.testing import StorageConformance

if TYPE_CHECKING:
    from neows_async.lake.storage.interface import Storage


class TestOurs(StorageConformance):
    @pytest.fixture
    def storage(self, storage: Storage) -> Storage:
        return storage


def test_each_error_is_one_line_that_names_the_object(storage: Storage) -> None:
    with pytest.raises(NotFoundError, match=r"raw/none.*no such object"):
        storage.get("raw/none")
    storage.put("big", b"x" * 1000)
    with pytest.raises(StorageError, match=r"big: 1000 bytes, where at most 999"):
        storage.get("big", max_bytes=999)
    with pytest.raises(StorageError, match="not a key"):
        storage.put("../x", b"")
    lock = storage.lock("a.lock", "pid 17 on\nalpha")
    with pytest.raises(SnapshotHeldError, match="held by pid 17 on alpha"):
        storage.lock("a.lock", "pid 18 on beta")
    lock.release()
    with pytest.raises(SnapshotHeldError, match="lost"):
        lock.check()
