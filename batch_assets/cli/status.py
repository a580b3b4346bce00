"""`batch-assets status`: what became of the items."""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from batch_assets.cli.pipelines import chosen_pipeline, declared_pipelines
from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.promotions import model_in_force, newest_promotion, with_model_in_force
from batch_assets.database.records.remaining import failed_rows
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.hours import utc_now
from batch_assets.pipeline import Declaration

if TYPE_CHECKING:
    from rich.table import Table


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
    "--older-model",
    is_flag=True,
    help="Show the hours instead that another model than the one in force has scored last, the latest first.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=50,
    show_default=True,
    help="How many failed items to show, or hours of an older model.",
)
@click.option("--pipeline", "name", metavar="NAME", help="The pipeline; all of them without it.")
def status(count: int, failed: bool, older_model: bool, limit: int, name: str | None = None) -> None:
    """Show what became of the items of each hour that has any, and which hours and items are given up."""
    from rich.console import Console  # noqa: PLC0415 - what only one command needs, the others do not wait for

    if failed and older_model:
        raise click.UsageError("Choose one of --failed and --older-model.")
    # A pipe has no width to fit the table to.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    chosen = [chosen_pipeline(name)] if name else declared_pipelines()
    for declaration in chosen:
        if len(chosen) > 1:
            click.echo(f"{declaration.name}: {declaration.items.name}.{declaration.items.prediction}")
        if failed:
            table, remarks = _failed(declaration, limit)
        else:
            table, remarks = _of_older_models(declaration, limit) if older_model else _hours(declaration, count)
        console.print(table)
        for remark in remarks:
            click.echo(remark)


def _hours(declaration: Declaration, count: int) -> "tuple[Table, list[str]]":
    from batch_assets.reporting.challenger_summary import challenger_remarks  # noqa: PLC0415 - as above
    from batch_assets.reporting.older_models import older_models  # noqa: PLC0415
    from batch_assets.reporting.promotions import promotion_remarks  # noqa: PLC0415
    from batch_assets.reporting.status import hours_status, status_table  # noqa: PLC0415

    declared = declaration.load()
    engine, now = engine_for(declared.database), utc_now()
    newest = newest_promotion(engine, pipeline_tables(declared))
    pipeline = replace(declared, model=model_in_force(declared, newest))
    found = hours_status(engine, pipeline, now, count)
    return status_table(found), [
        *promotion_remarks(declared, newest),
        *found.remarks,
        *older_models(engine, pipeline),
        *challenger_remarks(engine, declaration, now, count),
    ]


def _failed(declaration: Declaration, limit: int) -> "tuple[Table, list[str]]":
    from batch_assets.reporting.status import failed_remarks, failed_table  # noqa: PLC0415 - as above

    pipeline = declaration.load()
    attempts = pipeline.retry.max_attempts
    rows = failed_rows(engine_for(pipeline.database), pipeline_tables(pipeline), limit + 1, attempts)
    return failed_table(rows[:limit]), failed_remarks(rows, limit)


def _of_older_models(declaration: Declaration, limit: int) -> "tuple[Table, list[str]]":
    from batch_assets.reporting.older_models import hours_of_older_models, older_models_table  # noqa: PLC0415 - as above

    pipeline = with_model_in_force(declaration.load())
    rows = hours_of_older_models(engine_for(pipeline.database), pipeline, limit + 1)
    if not rows:
        remarks = ["No hour was scored last by another model."]
    else:
        remarks = [f"There are more than these {limit:,}: --limit shows more."] if len(rows) > limit else []
        remarks.append(f"To have all of them scored again: {declaration.command('rescore')} --older-model")
    return older_models_table(rows[:limit]), remarks
