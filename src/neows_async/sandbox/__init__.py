"""An imitation of NeoWs Browse and of the api.data.gov gateway in front of it: in this process, or on loopback.

::

    request
      │
    server.py, transport.py   serve the application: on loopback with uvicorn, or to an httpx client in this process
      │
    app.py                    decides on each request and sends the reply                          (start here)
      ├─ request.py           parses the request
      ├─ rate_limits.py       the gateway: counts requests by key and address, refuses with 403 or 429
      ├─ scenario.py          faults, latency and changes of the catalogue, from a seed or a TOML file
      ├─ catalogue.py         the objects: synthetic (synthetic.py), recorded pages, or a catalogue that changes
      ├─ page_json.py         the JSON of a page; faults.py changes it; responses.py has all other responses
      └─ delivery.py          sends the response: in chunks, as gzip, or broken off by a fault

Across its border: a ``Scenario`` and a ``Catalogue`` go in; a :class:`~neows_async.sandbox.app.SandboxApp` comes out,
with the requests that it ``served``.

"Gateway" means the rate-limiting gateway of api.data.gov everywhere in this project, and only that.

Promises: equal seeds give equal bytes on every machine, and equal faults at any concurrency. Rates and refusals are
those of api.data.gov's software. A key that is sent returns in links and errors, as from NASA, so that redaction is
tested. Nothing listens beyond loopback.
"""
