"""Ready-made listeners, one file each: a run's events as metrics, spans and logs.

Each file is an extra of its own (``pip install 'neows-async[prometheus]'``) and knows the events, never the
engine. Several listen at once through :func:`neows_async.telemetry.events.each`. No figure, label, attribute or line
holds a key, and what a label can say is bounded.
"""
