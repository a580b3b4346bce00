"""The hours."""

import warnings
from functools import cache

import click
import dagster as dg

from batch_assets.errors import HourError
from batch_assets.hours import HOUR_FORMAT, Hour, hour_of_key, hours_between, utc_now
from batch_assets.pipeline import Declaration
from batch_assets.settings.environment import environment
from batch_assets.settings.retry import RetrySettings

PARTITION_TAG = "dagster/partition"
RANGE_START_TAG, RANGE_END_TAG = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def _not_an_hour(key: str) -> str:
    return f"{key!r} is not an hour: write an hour of UTC as 2026-11-01-05:00."


class HourlyPartitions(dg.HourlyPartitionsDefinition):
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


# A run of a backfill takes this many hours, each stored and recorded by itself; a process an hour would cost more
# than an hour of items. Dagster calls it beta: the tests of the backfills say whether it still does what it did.
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", dg.BetaWarning)
backfill_policy = dg.BackfillPolicy.multi_run(RetrySettings.from_environment(environment()).backfill_hours)


@cache
def hourly_partitions(declaration: Declaration) -> HourlyPartitions:
    """Returns the hours of a pipeline, from its first one on."""
    return HourlyPartitions(start_date=declaration.first_hour().key, fmt=HOUR_FORMAT, timezone="UTC")


def closed_hours(context: dg.AssetExecutionContext, declaration: Declaration) -> list[Hour]:
    """Returns the hours that a step is for: one, or those of a range in a backfill, oldest first.

    Dagster's command line starts runs for any partition that it is given, so they are checked here.

    Args:
        context: That of the step.
        declaration: The pipeline.

    Raises:
        HourError: No hour was given, or one is not a closed hour of this pipeline.
    """
    # From the tags: to ask the context for the key of an hour before the first one is an error of its own.
    tags = context.run.tags
    key = tags.get(PARTITION_TAG)
    if key is not None:
        return [check_closed(key, declaration)]
    ends = [tags[tag] for tag in (RANGE_START_TAG, RANGE_END_TAG) if tag in tags]
    if len(ends) < 2:
        raise HourError(
            "This run is not for one hour: choose a partition in the UI, or pass "
            '--tags \'{"dagster/partition": "2026-11-01-05:00"}\'.'
        )
    return hours_between(*(check_closed(key, declaration) for key in ends))


def check_closed(key: str, declaration: Declaration) -> Hour:
    """Returns the hour of a partition key.

    Args:
        key: The key.
        declaration: The pipeline.

    Raises:
        HourError: It is not an hour, lies before the first one, or is still open or in the future.
    """
    hour, now = hour_of_key(key), utc_now()
    if hour is None:
        raise HourError(_not_an_hour(key))
    if hour.end > now:
        state = "is still open" if hour.start <= now else "lies in the future"
        raise HourError(
            f"The hour {key} {state}: items may yet be written to it. It can be scored from {hour.end:%Y-%m-%d %H:%M} "
            f"UTC on (it is {now:%Y-%m-%d %H:%M})."
        )
    if not hourly_partitions(declaration).has_partition_key(key):
        raise HourError(
            f"The hour {key} lies before the first one, {declaration.first_hour().key}: choose a later hour, or set "
            "BATCH_FIRST_HOUR to an earlier one."
        )
    return hour
