"""The hours."""

import datetime
import os

import click
import dagster as dg

from batch_assets.database.hours import HOUR_FORMAT, Hour, first_hour, hour_of_key
from batch_assets.errors import HourError


def _not_an_hour(key: str) -> str:
    return f"{key!r} is not an hour: write an hour of UTC as 2026-11-01-05:00."


class Hours(dg.HourlyPartitionsDefinition):
    """Hours of UTC that answer a key of another form with a sentence.

    `dagster job execute` asks for the window of any key before a step has a say, and shows a `ClickException`
    without a traceback.
    """

    # The original is a cached function, which the type checker takes for another kind of thing.
    def time_window_for_partition_key(self, partition_key: str) -> dg.TimeWindow:  # type: ignore[override]
        """Returns the window of an hour, whether it is a partition or not."""
        if hour_of_key(partition_key) is None:
            raise click.ClickException(_not_an_hour(partition_key))
        return super().time_window_for_partition_key(partition_key)


hours = Hours(start_date=first_hour(os.environ).key, fmt=HOUR_FORMAT, timezone="UTC")


def closed_hour(context: dg.AssetExecutionContext) -> Hour:
    """Returns the hour that a step is for.

    Dagster's command line starts runs for any partition that it is given, so it is checked here.

    Raises:
        HourError: No hour was given, or it is not a closed hour of this pipeline.
    """
    # From the tag: to ask the context for the key of an hour before the first one is an error of its own.
    key = context.run.tags.get("dagster/partition")
    if key is None:
        raise HourError(
            "This run is not for one hour: choose a partition in the UI, or pass "
            '--tags \'{"dagster/partition": "2026-11-01-05:00"}\'.'
        )
    return check_closed(key)


def check_closed(key: str) -> Hour:
    """Returns the hour of a partition key.

    Raises:
        HourError: It is not an hour, lies before the first one, or is still open or in the future.
    """
    hour, now = hour_of_key(key), datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    if hour is None:
        raise HourError(_not_an_hour(key))
    if hour.end > now:
        state = "is still open" if hour.start <= now else "lies in the future"
        raise HourError(
            f"The hour {key} {state}: items may yet be written to it. It can be scored from {hour.end:%Y-%m-%d %H:%M} "
            f"UTC on (it is {now:%Y-%m-%d %H:%M})."
        )
    if not hours.has_partition_key(key):
        raise HourError(
            f"The hour {key} lies before the first one, {first_hour(os.environ).key}: choose a later hour, or set "
            "BATCH_FIRST_HOUR to an earlier one."
        )
    return hour
