"""NeoWs Browse: from the bytes of a response to columns. Pure.

::

    RawPage (as received)  or  StoredPage (from the raw zone)
      │
    receive.py         decompress, redact, check, decode, compress: one call for a page        (start here)
      ├─ envelope.py       is it the whole page that was requested? the bytes of each object
      └─ decode.py         columns, and the closest approach of each object
           ├─ decode_fast.py    regular pages: typed JSON, then checks on whole columns
           │    └─ approach_scan.py, _approach_scan.c   finds the values of approaches without a JSON parser
           └─ decode_exact.py   all other pages: object by object; names what is wrong with an object
                └─ neo.py            the contract of an object: its fields, their grammar and ranges
      │
    Page (columns by dataset name)

    schema.py          the columns of both datasets
    page_plan.py       the pages that a run needs, from the first envelope

Across the border: ``RawPage`` and ``StoredPage`` go in; ``Page`` comes out, or ``BadPageError``. Embedders also see
:class:`~neows_async.endpoints.browse.neo.Neo`.

Promises: equal bytes give an equal page. The fast and the exact path give the same bytes, with and without the compiled
scanner. One invalid object is rejected by name and never costs its page. Proof: tests/endpoints.
"""
