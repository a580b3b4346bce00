"""`batch-assets actuals`: what came true of items."""

from pathlib import Path

import click

from batch_assets.cli.pipelines import chosen_pipeline, pipeline_option
from batch_assets.cli.register import opened_file
from batch_assets.database.connection.engine import engine_for
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.hours import utc_now
from batch_assets.wording import counted


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@pipeline_option
def actuals(file: Path, name: str | None) -> None:
    """Store what came true of items: FILE is CSV with item_id and label or value, or JSON Lines; - for standard input.

    All of it or, when a line is malformed or an item is not there, none. What was stored of an item before is replaced.
    """
    from batch_assets.database.records.actuals import Actual, store_actuals  # noqa: PLC0415 - imports NumPy
    from batch_assets.item_files.actuals import read_actuals  # noqa: PLC0415

    pipeline = chosen_pipeline(name).load()
    with opened_file(file) as (stream, file_name, _):
        rows = (Actual(*row) for row in read_actuals(stream, file_name))
        count = store_actuals(engine_for(pipeline.database), pipeline_tables(pipeline), rows, utc_now())
    click.echo(f"stored what came true of {counted(count, 'item')}")
