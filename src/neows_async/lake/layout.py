"""Where each object of a lake is stored: one function for each key, one list of the folders.

The layout is fixed: lakes outlive programs, and other programs read them.
"""

from __future__ import annotations

from typing import Final

RAW: Final = "raw"  # the raw pages
DATASETS: Final = ("neos", "close_approaches", "aggregates", "quarantine")  # written by our own sinks
SNAPSHOT_FOLDERS: Final = (RAW, *DATASETS)  # those with a ``snapshot=<id>`` below them
RECEIPTS: Final = "_runs"  # the receipts
STAGING: Final = "_staging"  # the unfinished work
# A sink that wrote here could forge a receipt or replace a raw page.
RESERVED: Final = (RAW, RECEIPTS, STAGING)  # no sink may write there
# Not a link: object stores have none, and readers get the whole receipt with one request.
LATEST: Final = f"{RECEIPTS}/latest.json"  # a copy of the latest snapshot's receipt


def raw_snapshot_folder(snapshot: str) -> str:
    """The raw pages of all generations."""
    return f"{RAW}/snapshot={snapshot}"


def raw_folder(snapshot: str, generation: int = 0) -> str:
    """The raw pages of one generation."""
    return f"{raw_snapshot_folder(snapshot)}/gen={generation}"


def dataset_folder(dataset: str, snapshot: str) -> str:
    """The files of one snapshot of a dataset."""
    return f"{dataset}/snapshot={snapshot}"


def staging_folder(snapshot: str) -> str:
    """The unfinished work of one snapshot."""
    return f"{STAGING}/{snapshot}"


def staged_key(snapshot: str, final_key: str) -> str:
    """The file that the commit moves to ``final_key``."""
    return f"{staging_folder(snapshot)}/files/{final_key}"


def run_note_key(snapshot: str) -> str:
    """The note of the run that began the snapshot. Its creation reserves the id."""
    return f"{staging_folder(snapshot)}/run.json"


def commit_key(snapshot: str) -> str:
    """The commit intent: the receipt that the snapshot is about to get."""
    return f"{staging_folder(snapshot)}/commit.json"


def removal_key(snapshot: str) -> str:
    """The receipt of a snapshot that is being removed: the snapshot no longer exists, some of its files may."""
    return f"{staging_folder(snapshot)}/removed.json"


def lock_key(snapshot: str) -> str:
    """The lock that the one run holds which writes the snapshot."""
    return f"{staging_folder(snapshot)}.lock"


def receipt_key(snapshot: str) -> str:
    """The receipt. Its creation is the commit."""
    return f"{RECEIPTS}/{snapshot}.json"
