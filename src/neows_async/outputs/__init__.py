"""Makes files and figures of admitted pages.

::

    Page ─► parquet.py            a dataset's rows as Parquet files      (a sink)
         ─► quarantine.py         rejected objects, one JSON line each   (a sink; every run has it)
         ─► close_approaches.py   counts of close approaches             (aggregators)
                   │ result()
                   ▼
            aggregate_files.py    one JSON or CSV file for each aggregate (aggregate writers)

    registry.py   the one table of these parts: name, factory, files, a phrase for --help

A sink gets whole pages (:class:`~neows_async.pages.values.Page`) and writes into a stage; the commit makes it visible.
An aggregator gets record batches by dataset name and returns figures; it does no I/O. A writer gets all figures.
The protocols are in ``neows_async/protocols.py``.

Promise: the bytes depend on the pages and the settings alone, and not on how pages were batched, or when they came.
Proof: tests/outputs, and the conformance tests in ``neows_async.testing``.

To add a part, write one file here and add one line to registry.py (the place to start reading).
"""
