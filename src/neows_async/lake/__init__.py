"""The lake: immutable snapshots in a folder or a bucket, each committed at one point.

A run writes one snapshot. It locks the snapshot's id, stores raw pages, stages files, and commits by creating the
receipt. If it is killed at any step, the same command finishes the work::

    open_snapshot ──► SnapshotWriter ──► RawZone.put ──► LakeStage ──► SnapshotWriter.commit ──► Receipt
      resume.py         snapshot.py      raw_zone.py     staging.py       snapshot.py            receipt.py

    layout.py          the key of each object, and the list of folders         (start here)
    snapshot.py        the life of a snapshot, step by step                    (then here)
    resume.py          finds the unfinished snapshot of a request, or begins one
    raw_zone.py        received pages: durable, read back in any order
    staging.py         files before the commit
    receipt.py         Receipt and RunNote: the records, as JSON
    lake.py            Lake for readers, AsyncLake for runs: reads these records
    inventory.py       all snapshots, in every state
    async_storage.py   AsyncStorage: blocking storage calls in threads, with a time limit
    storage/           the blocking storage itself: a local folder or an object store

Values that cross the border: :class:`~neows_async.lake.receipt.Receipt`,
:class:`~neows_async.lake.async_storage.AsyncStorage` and :class:`~neows_async.lake.snapshot.SnapshotWriter`.

Promises:

- A snapshot exists exactly when its receipt exists, and never changes afterwards.
- One live run writes a snapshot. If its lock is lost to another run, the create-only receipt still admits one commit.
- A stored page is durable before it counts as fetched, so it is never requested again.
- A cancelled run leaves a resumable state within a second, even if the storage hangs.
"""
