"""What `batch-assets status` shows: the hours as the tables have them at this moment."""

import datetime
from dataclasses import dataclass

import sqlalchemy as sa
from rich.table import Table

from batch_assets.database.hours import Hour, HourCounts, count_by_hour, first_created, last_created, model_versions

VERSION_CHARACTERS = 12


@dataclass(frozen=True)
class HoursStatus:
    """The hours of a stretch of time.

    Args:
        hours: Those that have items, oldest first.
        versions: With which model an hour was scored last.
        now: The present, in UTC without a zone.
        remarks: What the table cannot show, a sentence each.
    """

    hours: list[HourCounts]
    versions: dict[Hour, str]
    now: datetime.datetime
    remarks: list[str]


def hours_status(engine: sa.Engine, now: datetime.datetime, count: int, first: Hour) -> HoursStatus:
    """Looks at the last hours.

    Args:
        engine: The database.
        now: The present, in UTC without a zone.
        count: How many hours to go back; the one that is open is shown too.
        first: The first hour of the pipeline.
    """
    end = now.replace(minute=0, second=0, microsecond=0) + datetime.timedelta(hours=1)
    start = end - datetime.timedelta(hours=count + 1)
    return HoursStatus(
        count_by_hour(engine, start, end), model_versions(engine, start, end), now, _remarks(engine, start, end, first)
    )


def _remarks(engine: sa.Engine, start: datetime.datetime, end: datetime.datetime, first: Hour) -> list[str]:
    oldest, newest = first_created(engine), last_created(engine)
    remarks = []
    if oldest and oldest < start:
        back = -int((oldest - end) // datetime.timedelta(hours=1)) - 1
        remarks.append(f"Items go back to {oldest:%Y-%m-%d %H:%M} UTC: --hours {back} shows them all.")
    if oldest and oldest < first.start:
        remarks.append(
            f"Items from before the first hour, {first.key}, are not scored: set BATCH_FIRST_HOUR to "
            f"{Hour(oldest.replace(minute=0, second=0, microsecond=0)).key} if they should be."
        )
    if newest and newest >= end:
        remarks.append(f"Items are dated up to {newest:%Y-%m-%d %H:%M} UTC: hours that have not begun are not shown.")
    return remarks


def status_table(status: HoursStatus) -> Table:
    """Returns the hours as a table for the terminal, with their sum."""
    table = Table(show_footer=True)
    table.add_column("hour (UTC)", "sum", no_wrap=True)
    for name in ("items", "predicted", "failed", "pending"):
        total = sum(getattr(counts, name) for counts in status.hours)
        table.add_column(name, f"{total:,}", justify="right")
    table.add_column("model", no_wrap=True)
    for counts in status.hours:
        numbers = (counts.items, counts.predicted, counts.failed, counts.pending)
        version = status.versions.get(counts.hour, "")[:VERSION_CHARACTERS]
        state = "(open)" if counts.hour.end > status.now else version
        table.add_row(counts.hour.key, *(f"{number:,}" for number in numbers), state)
    return table
