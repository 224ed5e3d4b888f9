"""Sinks: where admitted pages go. One file each."""
