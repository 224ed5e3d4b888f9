"""``path``: where a dataset is."""

from __future__ import annotations

import click

from neows_async.cli import output
from neows_async.cli.foreground import run_on_lake
from neows_async.cli.options import Command, option, root_option
from neows_async.errors import SettingsError
from neows_async.lake.lake import AsyncLake
from neows_async.lake.layout import DATASETS, dataset_folder
from neows_async.lake.storage import location


@click.command(
    cls=Command,
    params=[
        click.Argument(["dataset"], default="neos"),
        root_option(),
        option("--snapshot", metavar="ID", default="latest", show_default=True, help="The snapshot's id."),
    ],
    epilog="""Examples:
  neows-async path                       the folder of the latest snapshot's neos
  neows-async path close_approaches --root s3://bucket/neows
  duckdb -c "SELECT count(*) FROM read_parquet('$(neows-async path)/**/*.parquet')\"""",
)
def path(dataset: str, root: str, snapshot: str) -> None:
    """Print the folder of a DATASET: neos, close_approaches, aggregates or quarantine."""
    if dataset not in DATASETS:
        raise SettingsError(f"there is no dataset {dataset!r}; there are {', '.join(DATASETS)}")

    receipt = run_on_lake(lambda lake: AsyncLake(lake).receipt(snapshot), root)
    with output.printing_answer():
        click.echo(f"{location(root)}/{dataset_folder(dataset, receipt.snapshot)}")
