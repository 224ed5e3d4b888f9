"""Aggregators: figures folded page by page. One file each; how they are written is a part of its own."""
