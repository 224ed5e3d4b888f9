"""Near-Earth objects from NASA's NeoWs into a Parquet data lake."""
