"""A website about near-Earth objects that keeps its own catalogue fresh. Copy it."""
