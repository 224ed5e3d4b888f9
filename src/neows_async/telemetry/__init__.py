"""The events of a run, and ready-made listeners that turn them into progress, metrics, spans and logs.

::

    a run ── events.py ──> listener ─┬─ progress.py     figures at any time, from any thread; no dependency
                                     ├─ prometheus.py   metrics in a registry     extra "prometheus"
                                     ├─ otel.py         a span and metrics        extra "otel"
                                     └─ structlog.py    one log event each        extra "structlog"

A listener is a function of one event. Across the border: the frozen values in events.py (start here), and
:class:`~neows_async.telemetry.progress.Figures`. Each listener knows the events and never the engine.
:func:`neows_async.telemetry.events.each` passes events to several listeners.

Promises: ``RunStarted`` is first and ``RunEnded`` is last, however a run ends. No figure, label, attribute or log line
holds a key. The variety of labels is bounded, whatever a source sends. Proof: tests/telemetry.
"""
