"""Snapshots in a lake."""
