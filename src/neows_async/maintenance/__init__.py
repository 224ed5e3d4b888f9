"""Verify, prune, replay."""
