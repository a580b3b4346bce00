"""The hours."""

import datetime
import os

import dagster as dg

from batch_assets.database.hours import HOUR_FORMAT, Hour
from batch_assets.errors import HourError, SettingsError

FIRST_HOUR = "2026-01-01-00:00"


def _parse(key: str) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.strptime(key, HOUR_FORMAT)  # noqa: DTZ007 - UTC without a zone, as in the database
    except ValueError:
        return None
    return moment if moment.strftime(HOUR_FORMAT) == key and moment.minute == 0 else None


def first_hour() -> str:
    """Returns the first hour of the pipeline: `BATCH_FIRST_HOUR`, or the start of 2026.

    Raises:
        SettingsError: The variable is not an hour.
    """
    text = os.environ.get("BATCH_FIRST_HOUR") or FIRST_HOUR
    if _parse(text) is None:
        raise SettingsError(f"BATCH_FIRST_HOUR is {text!r}: write an hour of UTC as 2026-11-01-05:00.")
    return text


hours = dg.HourlyPartitionsDefinition(start_date=first_hour(), fmt=HOUR_FORMAT, timezone="UTC")


def closed_hour(context: dg.AssetExecutionContext) -> Hour:
    """Returns the hour that a step is for.

    Dagster's command line starts runs for any partition that it is given, so it is checked here.

    Raises:
        HourError: No hour was given, or it is not a closed hour of this pipeline.
    """
    keys = context.partition_keys if context.has_partition_key or context.has_partition_key_range else []
    if len(keys) != 1:
        raise HourError(
            f"This run has {len(keys) or 'no'} hours, and a step scores one: choose a partition in the UI, or pass "
            '--tags \'{"dagster/partition": "2026-11-01-05:00"}\'.'
        )
    return check_closed(keys[0])


def check_closed(key: str) -> Hour:
    """Returns the hour of a partition key.

    Raises:
        HourError: It is not an hour, lies before the first one, or is still open or in the future.
    """
    start = _parse(key)
    if start is None:
        raise HourError(f"{key!r} is not an hour: write an hour of UTC as 2026-11-01-05:00.")
    hour, now = Hour(start), datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    if hour.end > now:
        state = "is still open" if hour.start <= now else "lies in the future"
        raise HourError(
            f"The hour {key} {state}: items may yet be written to it. It can be scored from {hour.end:%Y-%m-%d %H:%M} "
            f"UTC on (it is {now:%Y-%m-%d %H:%M})."
        )
    if not hours.has_partition_key(key):
        raise HourError(
            f"The hour {key} lies before the first one, {first_hour()}: choose a later hour, or set BATCH_FIRST_HOUR "
            "to an earlier one."
        )
    return hour
