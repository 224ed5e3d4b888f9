"""Maintains the snapshots of a lake: checks them, removes old ones, reads rejected objects again.

::

    verify/      check a snapshot against its receipt and its raw pages; writes nothing
    prune.py     remove all but the newest snapshots, and what dead runs left
    replay.py    parse the rejected objects of a snapshot again, after a fix of the program
    made_with.py the settings that a receipt records; both others need them

Across the border go a :class:`~neows_async.lake.receipt.Receipt` in, and one value out for each: ``VerifyReport``,
``Pruned``, ``Replay``. Nothing here sends a request. None of it imports the pipeline: a rebuild is a run, and
``cli/quarantine.py`` starts it from a ``RebuildRequest``.

Promises: ``verify`` and ``plan_replay`` only read. ``prune`` removes only objects that a run wrote, a receipt before
its files, so that a reader never finds a receipt whose files are gone. Proof: tests/maintenance.

Start reading in verify/__init__.py.
"""
