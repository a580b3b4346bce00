"""What `batch-assets status` shows: the hours as the tables have them at this moment."""

import datetime
from dataclasses import dataclass

import sqlalchemy as sa
from rich.table import Table

from batch_assets.database.hours import Hour, HourCounts, count_by_hour, first_created, model_versions

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


def hours_status(engine: sa.Engine, now: datetime.datetime, count: int) -> HoursStatus:
    """Looks at the last hours.

    Args:
        engine: The database.
        now: The present, in UTC without a zone.
        count: How many hours to go back; the one that is open is shown too.
    """
    end = now.replace(minute=0, second=0, microsecond=0) + datetime.timedelta(hours=1)
    start = end - datetime.timedelta(hours=count + 1)
    oldest = first_created(engine)
    remarks = []
    if oldest and oldest < start:
        back = -int((oldest - end) // datetime.timedelta(hours=1)) - 1
        remarks.append(f"Items go back to {oldest:%Y-%m-%d %H:%M} UTC: --hours {back} shows them all.")
    return HoursStatus(count_by_hour(engine, start, end), model_versions(engine, start, end), now, remarks)


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
