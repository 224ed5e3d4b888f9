"""What is known of each API that pages come from, one package an endpoint. Pure: no I/O, no clock.

``browse/`` is NeoWs Browse. Nothing outside this package knows a field name of an API, except the sandbox, which
imitates one. A further endpoint (NeoWs Feed, CNEOS close approaches) becomes a package beside ``browse/``.

Across the border: :class:`~neows_async.pages.values.RawPage` goes in; :class:`~neows_async.pages.values.Page` comes
out, or :class:`~neows_async.errors.BadPageError`. Start reading at ``browse/__init__.py``.
"""
