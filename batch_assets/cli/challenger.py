"""`batch-assets challenger`: how the second model compares with the one in force."""

import sys

import click

from batch_assets.cli.pipelines import chosen_pipeline, pipeline_option
from batch_assets.database.connection.engine import engine_for
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
@pipeline_option
def challenger(count: int, name: str | None) -> None:
    """Show how the challenger compares with the model in force.

    Of each hour it was compared for: on how many items, how often both give the same label, how the labels have shifted
    and, as far as it is known what came true, how right the model and the challenger are, in this order.
    """
    from rich.console import Console  # noqa: PLC0415 - what only some commands need, the others do not wait for

    from batch_assets.reporting import challenger_summary  # noqa: PLC0415

    declaration = chosen_pipeline(name)
    pipeline = declaration.load()
    summary = challenger_summary.challenger_summary(engine_for(pipeline.database), pipeline, utc_now(), count)
    if summary is None:
        click.echo(challenger_summary.nothing_compared(declaration, count))
        return
    # A pipe has no width to fit the table to.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(challenger_summary.hours_table(summary))
    shares = challenger_summary.shares_table(summary)
    if shares:
        console.print(shares)
    for sentence in challenger_summary.sentences(summary):
        click.echo(sentence)
