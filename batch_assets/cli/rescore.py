"""`batch-assets rescore`: hours are scored again, all of their items."""

import click

from batch_assets.cli.hours import closed_hour
from batch_assets.cli.pipelines import chosen_pipeline, pipeline_option
from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.hour_requests import request_rescoring
from batch_assets.database.records.promotions import with_model_in_force
from batch_assets.database.records.summaries import hours_with_summary
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.errors import RetryError
from batch_assets.hours import Hour, utc_now
from batch_assets.settings.retry import LEAVE
from batch_assets.wording import counted


@click.command()
@click.argument("what", metavar="[HOUR...]", nargs=-1)
@click.option("--older-model", is_flag=True, help="All hours that `batch-assets status --older-model` lists.")
@pipeline_option
def rescore(what: tuple[str, ...], older_model: bool, name: str | None) -> None:
    """Have every item of hours scored again, with the model in force.

    HOUR is written as 2026-11-01-05:00. The sensor requests each hour as a whole batch: readers see the old predictions
    until all of the new ones are there. All hours that are named are requested or, when one cannot be, none.
    """
    if bool(what) == older_model:
        raise click.UsageError("Name hours, or --older-model for all that another model has scored last.")
    declaration = chosen_pipeline(name)
    pipeline = declaration.load()
    if pipeline.retry.policy == LEAVE:
        raise RetryError(
            "BATCH_RETRY is 'leave', so that the sensor requests nothing: start a backfill of the hours with the tag "
            "batch_assets/retry and the value whole_batch. Nothing was changed."
        )
    engine, tables = engine_for(pipeline.database), pipeline_tables(pipeline)
    if older_model:
        from batch_assets.reporting.older_models import hours_of_older_models  # noqa: PLC0415 - imports the model's room

        hours = [Hour(row.hour) for row in hours_of_older_models(engine, with_model_in_force(pipeline))]
    else:
        hours = [closed_hour(text, pipeline.first_hour) for text in what]
        for hour in sorted(set(hours) - hours_with_summary(engine, tables, hours), key=lambda each: each.start):
            raise RetryError(
                f"The hour {hour.key} was not scored yet, so that there is nothing to score again: materialise it, or "
                "leave it to the sensor. Nothing was changed."
            )
    new = request_rescoring(engine, tables, hours, utc_now())
    waiting = len(set(hours)) - len(new)
    if waiting:
        click.echo(f"{counted(waiting, 'hour')} {'is' if waiting == 1 else 'are'} on the way already.")
    if new:
        when = new[0].key if len(new) == 1 else f"{new[0].key} to {new[-1].key}"
        click.echo(
            f"The sensor {declaration.sensor_name} requests {counted(len(new), 'hour')} ({when}) as whole batches "
            "within a minute, if the daemon runs."
        )
    elif not waiting:
        click.echo("No hour was scored last by another model.")
