"""Where everything in a lake is stored: one function a key."""

from __future__ import annotations

from typing import Final

RECEIPTS: Final = "_runs"
LATEST: Final = "_runs/latest.json"


def raw_snapshot_folder(snapshot: str) -> str:
    """Where the raw pages of all generations lie."""
    return f"raw/snapshot={snapshot}"


def raw_folder(snapshot: str, generation: int = 0) -> str:
    """Where the raw pages of one generation lie."""
    return f"{raw_snapshot_folder(snapshot)}/gen={generation}"


def dataset_folder(dataset: str, snapshot: str) -> str:
    """Where the files of one snapshot of a dataset lie."""
    return f"{dataset}/snapshot={snapshot}"


def staging_folder(snapshot: str) -> str:
    """Where the work in progress of one snapshot lies."""
    return f"_staging/{snapshot}"


def staged_key(snapshot: str, final_key: str) -> str:
    """Where the file that will be ``final_key`` waits for the commit."""
    return f"{staging_folder(snapshot)}/files/{final_key}"


def removal_key(snapshot: str) -> str:
    """Where the receipt of a snapshot lies that is being removed: it exists no more, its files may."""
    return f"{staging_folder(snapshot)}/removed.json"


def lock_key(snapshot: str) -> str:
    """The lock of the one run that may write a snapshot."""
    return f"{staging_folder(snapshot)}.lock"


def receipt_key(snapshot: str) -> str:
    """The receipt, whose creation is the commit."""
    return f"_runs/{snapshot}.json"
