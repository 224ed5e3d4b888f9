"""NeoWs Browse: from bytes to columns."""
