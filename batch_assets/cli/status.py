"""`batch-assets status`: what became of the items."""

import sys

import click

from batch_assets.cli.pipelines import chosen_pipeline, declared_pipelines
from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.remaining import failed_rows
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.hours import utc_now


@click.command()
@click.option(
    "--hours",
    "count",
    type=click.IntRange(1, 1_000_000),
    default=48,
    show_default=True,
    help="How many hours back from now.",
)
@click.option("--failed", is_flag=True, help="Show the items that failed instead, the latest first.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="How many failed items to show."
)
@click.option("--pipeline", "name", metavar="NAME", help="The pipeline; all of them without it.")
def status(count: int, failed: bool, limit: int, name: str | None = None) -> None:
    """Show what became of the items of each hour that has any, and which hours and items are given up."""
    from rich.console import Console  # noqa: PLC0415 - what only one command needs, the others do not wait for

    from batch_assets.reporting.status import (  # noqa: PLC0415
        failed_remarks,
        failed_table,
        hours_status,
        status_table,
    )

    # A pipe has no width to fit the table to.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    chosen = [chosen_pipeline(name)] if name else declared_pipelines()
    for declaration in chosen:
        if len(chosen) > 1:
            click.echo(f"{declaration.name}: {declaration.items.name}.{declaration.items.prediction}")
        pipeline = declaration.load()
        engine = engine_for(pipeline.database)
        if failed:
            rows = failed_rows(engine, pipeline_tables(pipeline), limit + 1, pipeline.retry.max_attempts)
            console.print(failed_table(rows[:limit]))
            remarks = failed_remarks(rows, limit)
        else:
            hours = hours_status(engine, pipeline, utc_now(), count)
            console.print(status_table(hours))
            remarks = hours.remarks
        for remark in remarks:
            click.echo(remark)
