"""Where pages come from: a page number goes in, the page as received comes out.

::

    fetch(number, size)
      │
      ├─ nasa.py               NeoWs over HTTP: one attempt, and the error that each response means   (start here)
      │    ├─ http_body.py       reads a body up to a limit
      │    └─ http_pool.py       idle connections, as an httpx transport
      │         └─ http_connection.py   one HTTP/1.1 connection, parsed by h11
      │
      └─ archive.py            the stored raw pages of an earlier snapshot

Across the border: a :class:`~neows_async.pages.values.RawPage`, or one of the errors below
:class:`~neows_async.errors.SourceError`. An ``AttemptError`` may be retried; a ``RefusedError`` may not. A source makes
one attempt: retries, quota and outages are decided in pipeline/ and pacing/.

Promises: the key is sent to the host of ``base_url`` only, in one header, and no text of an error holds it. A body
never takes more memory than its limit. A connection is reused only after a complete response; an error or a
cancellation closes it. Proof: tests/sources.
"""
