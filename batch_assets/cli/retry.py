"""`batch-assets retry`: hours and failed items are tried again."""

import click

from batch_assets.cli.pipelines import chosen_pipeline, pipeline_option
from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.hour_requests import reset_attempts
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.errors import RetryError
from batch_assets.hours import Hour, hour_of_key, utc_now
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
    hours = [_closed_hour(text, pipeline.first_hour) for text in what if not _is_id(text)]
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


def _closed_hour(text: str, first: Hour) -> Hour:
    hour = hour_of_key(text)
    if hour is None:
        raise RetryError(
            f"{text!r} is neither an hour nor the id of an item: write an hour of UTC as 2026-11-01-05:00. Nothing was "
            "put back."
        )
    if hour.end > utc_now():
        raise RetryError(f"The hour {text} has not ended: it is scored from {hour.end} UTC on. Nothing was put back.")
    if hour.start < first.start:
        raise RetryError(
            f"The hour {text} lies before the first one, {first.key}: set BATCH_FIRST_HOUR to {text} or earlier. "
            "Nothing was put back."
        )
    return hour
