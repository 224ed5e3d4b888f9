"""When the next request may be sent, so that the gateway never refuses one.

The gateway counts requests in hours aligned to the epoch, and refuses a request when ::

    current_hour + floor(previous_hour * share of it still inside the window) >= limit

A client sees only ``limit`` and ``remaining`` of each response. From these:

    rules.py        what is known of the gateway and is not in its responses
    hour.py         the sliding window, and an upper bound of its estimate    (start here)
    bursts.py       the limits over seconds
    quota.py        the decision: seconds until one more request is inside every limit
    state.py        what the decision depends on, as JSON
    breaker.py      whether the source is down, and how often to probe it then
    concurrency.py  how many requests may be in flight
    forecast.py, simulation.py   when a run ends: hour by hour, and request by request

All of these are pure: the time is an argument. Three files act:

    gate.py         waits, and gives one permit for each request
    shared_quota.py decides together with other runs that have the same key
    quota_store.py  stores what they share

Two values cross the border: a ``Permit`` for each request, to which the fetcher reports the outcome, and
``RunConditions`` for a simulation.

Promise: no request is refused while nobody else uses the key faster than its headers show. ``Retry-After`` is honoured
in full. Proof: tests/pacing/test_never_over.py.
"""
