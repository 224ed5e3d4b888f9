"""A real S3 server for tests: SeaweedFS, on free ports, without root. Tests start and stop it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import obstore
from obstore.store import S3Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import RetryConfig

BUCKET: Final = "lake"
ACCESS_KEY: Final = "AKNEOWSTEST"
SECRET_KEY: Final = "the-secret-of-the-test-server"  # noqa: S105 - of a server on loopback, for seconds
READER_ACCESS_KEY: Final = "AKNEOWSREADER"
READER_SECRET_KEY: Final = "the-secret-of-the-reader"  # noqa: S105 - as above
READY: Final = timedelta(seconds=30)
FEW_RETRIES: Final[RetryConfig] = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=5),
    "backoff": {"init_backoff": timedelta(milliseconds=10), "max_backoff": timedelta(milliseconds=50), "base": 2},
}


@dataclass(frozen=True)
class SeaweedFS:
    """A running server with the bucket ``lake``."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of a program that writes to it."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def uri(self, prefix: str) -> str:
        """The URI of a root in its bucket."""
        return f"s3://{BUCKET}/{prefix}?region=us-east-1&endpoint_override={self.endpoint}"


def weed_program() -> str | None:
    """The path of the server's program; None if it is not installed."""
    return shutil.which("weed")


def store(
    port: int,
    prefix: str | None = None,
    *,
    bucket: str = BUCKET,
    access_key: str = ACCESS_KEY,
    secret_key: str = SECRET_KEY,
    timeout: timedelta = timedelta(seconds=20),
    retry: RetryConfig = FEW_RETRIES,
) -> S3Store:
    """A client of the server, or of a proxy, at ``port``."""
    return S3Store(
        bucket,
        prefix=prefix,
        config={
            "access_key_id": access_key,
            "secret_access_key": secret_key,
            "endpoint": f"http://127.0.0.1:{port}",
            "region": "us-east-1",
            "disable_bulk_delete": True,
        },
        client_options={"allow_http": True, "timeout": timeout, "connect_timeout": timedelta(seconds=2)},
        retry_config=retry,
    )


@contextlib.contextmanager
def running(program: str, folder: Path) -> Iterator[SeaweedFS]:
    """A server with its data in ``folder``, ready on entry and stopped on exit."""
    data = folder / "data"
    data.mkdir()
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": _identities()}))
    names = ("master", "volume", "filer", "s3", "admin")
    ports = _free_ports(2 * len(names))
    s3_port = ports[names.index("s3")]
    command = [
        program,
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-bucket={BUCKET}",
        f"-s3.config={config}",
        f"-filer.localSocket={folder / 'f.sock'}",
        f"-s3.localSocket={folder / 's.sock'}",
        *(f"-{name}.port={port}" for name, port in zip(names, ports[: len(names)], strict=True)),
        *(f"-{name}.port.grpc={port}" for name, port in zip(names, ports[len(names) :], strict=True)),
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.iam=false",
        "-webdav=false",
        "-admin.ui=false",
        "-volume.preStopSeconds=0",
        "-master.telemetry=false",  # a test sends no telemetry
    ]
    log_path = folder / "weed.log"
    temporary = folder / "tmp"  # for its logs
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    with (
        log_path.open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment) as process,
    ):
        try:
            _wait_until_ready(s3_port, log_path)
            yield SeaweedFS(s3_port)
        finally:
            process.kill()  # its data is removed with the folder
            process.wait()
            for name, port in zip(names, ports[len(names) :], strict=True):
                # Their place is fixed, and a killed server does not remove them.
                Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)  # noqa: S108 - as above


def _wait_until_ready(port: int, log_path: Path) -> None:
    patient: RetryConfig = {
        "max_retries": 1000,
        "retry_timeout": READY,
        "backoff": {"init_backoff": timedelta(milliseconds=20), "max_backoff": timedelta(milliseconds=100), "base": 2},
    }
    try:
        obstore.put(store(port, retry=patient), "ready", b"", use_multipart=False)
    except Exception as exc:
        raise RuntimeError(f"SeaweedFS did not start: {log_path.read_text(errors='replace')[-2000:]}") from exc


def _identities() -> list[dict[str, object]]:
    def identity(name: str, access_key: str, secret_key: str, *actions: str) -> dict[str, object]:
        return {
            "name": name,
            "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
            "actions": list(actions),
        }

    return [
        identity("writer", ACCESS_KEY, SECRET_KEY, "Admin", "Read", "Write", "List", "Tagging"),
        identity("reader", READER_ACCESS_KEY, READER_SECRET_KEY, "Read", "List"),
    ]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
