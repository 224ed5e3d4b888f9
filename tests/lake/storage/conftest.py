"""Three storages for the same tests: a folder, a real S3 server, an object store in memory."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from obstore.store import MemoryStore

from neows_async.lake.storage.local import LocalStorage
from neows_async.lake.storage.object_store import ObjectStorage
from tests.lake.storage import seaweedfs

if TYPE_CHECKING:
    from pathlib import Path

    from neows_async.lake.storage.interface import Storage
    from tests.lake.storage.seaweedfs import SeaweedFS


@pytest.fixture
def s3_storage(s3: SeaweedFS) -> ObjectStorage:
    """A new prefix on the real server."""
    prefix = f"t/{uuid.uuid4().hex}"
    return ObjectStorage(seaweedfs.store(s3.port, prefix), f"s3://{seaweedfs.BUCKET}/{prefix}")


@pytest.fixture(params=["local", "s3", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Each of the storages, empty."""
    if request.param == "local":
        return LocalStorage(tmp_path / "lake")
    if request.param == "memory":
        return ObjectStorage(MemoryStore(), "memory://lake")
    found: ObjectStorage = request.getfixturevalue("s3_storage")
    return found
