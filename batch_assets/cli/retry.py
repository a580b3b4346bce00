"""`batch-assets retry`: hours and failed items are tried again."""

import click

from batch_assets.cli.hours import closed_hour
from batch_assets.cli.pipelines import chosen_pipeline, pipeline_option
from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.hour_requests import reset_attempts
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.hours import utc_now
from batch_assets.settings.retry import LEAVE


@click.command()
@click.argument("what", metavar="HOUR|ID...", nargs=-1, required=True)
@pipeline_option
def retry(what: tuple[str, ...], name: str | None) -> None:
    """Put hours and failed items back, to be tried again as if they had never failed.

    HOUR is written as 2026-11-01-05:00, and stands for all its failed items; ID is that of a failed item, as
    `batch-assets status --failed` lists them. All that is named is put back or, when something cannot be, nothing.
    """
    declaration = chosen_pipeline(name)
    pipeline = declaration.load()
    ids = [int(text) for text in what if _is_id(text)]
    hours = [closed_hour(text, pipeline.first_hour, "the id of an item") for text in what if not _is_id(text)]
    count, requested = reset_attempts(engine_for(pipeline.database), pipeline_tables(pipeline), hours, ids, utc_now())
    if count:
        click.echo(f"{count:,} failed item{' is' if count == 1 else 's are'} pending again.")
    keys = ", ".join(hour.key for hour in requested)
    if pipeline.retry.policy == LEAVE:
        click.echo(f"Materialise what is to be scored: BATCH_RETRY is 'leave', so nothing requests {keys} by itself.")
    else:
        click.echo(f"The sensor {declaration.sensor_name} requests within a minute, if the daemon runs: {keys}")


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit()
