"""What embedders call; ``neows_async`` exports all of it.

::

    ingest.py     ingest: one run into a lake; open_neos, open_batches: streams without a lake    (start here)
    streams.py    the iterators of these streams
    plan.py       plan: requests, quota and time of a run, before it begins
    plan_facts.py what is known before a run, and what follows from it
    defaults.py   the parts that a caller leaves out, made from the settings

Across the border: ``Settings`` and the caller's parts go in; a ``Receipt``, a stream or a plan comes out, or one
:class:`~neows_async.errors.NeowsError`.

Promises: everything is an argument. No function reads the environment, prints, handles signals or changes global
state, so two runs in one process never affect each other. Cancelling a run leaves a snapshot that the next run resumes.
"""
