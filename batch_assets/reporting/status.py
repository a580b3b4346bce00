"""What `batch-assets status` shows: the hours as the tables have them at this moment."""

import datetime
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from rich.table import Table
from rich.text import Text

from batch_assets.database.records.hour_counts import (
    HourCounts,
    count_by_hour,
    first_created,
    last_created,
    model_versions,
)
from batch_assets.database.records.hour_requests import read_requests
from batch_assets.database.records.remaining import remaining_by_hour
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.hours import Hour
from batch_assets.pipeline import Pipeline
from batch_assets.wording import short_version

MESSAGE_CHARACTERS = 46
GIVEN_UP_HOURS = 20


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


def hours_status(engine: sa.Engine, pipeline: Pipeline, now: datetime.datetime, count: int) -> HoursStatus:
    """Looks at the last hours.

    Args:
        engine: The database.
        pipeline: The pipeline.
        now: The present, in UTC without a zone.
        count: How many hours to go back; the one that is open is shown too.
    """
    tables = pipeline_tables(pipeline)
    end = now.replace(minute=0, second=0, microsecond=0) + datetime.timedelta(hours=1)
    start = end - datetime.timedelta(hours=count + 1)
    return HoursStatus(
        count_by_hour(engine, tables, start, end),
        model_versions(engine, tables, start, end),
        now,
        [*_given_up(engine, pipeline, end), *_remarks(engine, pipeline, start, end)],
    )


def _given_up(engine: sa.Engine, pipeline: Pipeline, end: datetime.datetime) -> list[str]:
    remarks, tables = [], pipeline_tables(pipeline)
    hours = {hour: row for hour, row in read_requests(engine, tables).items() if row.given_up_at}
    in_order = sorted(hours, key=lambda hour: hour.start, reverse=True)
    for hour in in_order[:GIVEN_UP_HOURS]:
        because = (hours[hour].given_up_because or "").rstrip(".")
        remarks.append(
            f"The hour {hour.key} is given up: {because}. Fix that and materialise the hour, or have it requested "
            f"again: batch-assets retry {hour.key}"
        )
    if len(hours) > GIVEN_UP_HOURS:
        remarks.append(f"{len(hours) - GIVEN_UP_HOURS:,} earlier hours are given up: see the table hour_requests.")
    remaining = remaining_by_hour(engine, tables, pipeline.first_hour, end, pipeline.retry.max_attempts)
    items = sum(of_hour.given_up for of_hour in remaining.values())
    if items:
        remarks.append(
            f"{items:,} failed item{' is' if items == 1 else 's are'} given up: see batch-assets status --failed, and "
            "correct the values, or put them back with batch-assets retry ID."
        )
    return remarks


def _remarks(engine: sa.Engine, pipeline: Pipeline, start: datetime.datetime, end: datetime.datetime) -> list[str]:
    items, first = pipeline_tables(pipeline).items, pipeline.first_hour
    oldest, newest = first_created(engine, items), last_created(engine, items)
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
        version = short_version(status.versions.get(counts.hour, ""))
        state = "(open)" if counts.hour.end > status.now else version
        table.add_row(counts.hour.key, *(f"{number:,}" for number in numbers), state)
    return table


def failed_table(rows: Sequence[sa.Row[Any]]) -> Table:
    """Returns failed items, as `failed_rows` has them, as a table for the terminal."""
    table = Table()
    table.add_column("id", justify="right", no_wrap=True)
    for name in ("hour (UTC)", "code", "message"):
        table.add_column(name, no_wrap=name != "message")
    table.add_column("attempts", justify="right")
    table.add_column("given up")
    for row in rows:
        # Not as markup, which a message may look like.
        message = Text(textwrap.shorten(row.message, MESSAGE_CHARACTERS, placeholder=" ..."))
        given_up = "yes" if row.given_up else "no"
        table.add_row(str(row.item_id), Hour(row.hour).key, Text(row.code), message, str(row.attempts), given_up)
    return table


def failed_remarks(rows: Sequence[sa.Row[Any]], limit: int) -> list[str]:
    """Returns what the table of failed items cannot show.

    Args:
        rows: The failed items, one more than are shown if there are more.
        limit: How many are shown.
    """
    if not rows:
        return ["No item has failed."]
    remarks = [f"There are more than these {limit:,}: --limit shows more."] if len(rows) > limit else []
    if any(row.given_up for row in rows[:limit]):
        remarks.append("What is given up is tried again when its values are corrected, or after: batch-assets retry ID")
    return remarks
