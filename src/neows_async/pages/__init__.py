"""The values that travel through a run, and what is done to bytes before they are decoded. Pure.

::

    values.py    RawPage: as received · StoredPage: in the raw zone · Page: columns by dataset name     (start here)
    content.py   decompress a response body, within a limit
    redact.py    remove keys from a body
    stored.py    compress a page's JSON and seal it; read it back

A source returns a ``RawPage``. :mod:`neows_async.endpoints.browse.receive` turns it into a ``Page``, with the
``StoredPage`` beside it. Sinks get the ``Page``.

Promise: all values are frozen, equal bytes give equal values, and no ``repr`` shows a body, which may hold a key.
"""
