"""What embedders call."""
