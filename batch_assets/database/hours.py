"""Hours of `items`: what stands in them."""

import datetime
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets.database.engine import snapshot
from batch_assets.database.tables import failed_items, items, run_summary
from batch_assets.errors import SettingsError

SAMPLE_ROWS = 100
# Of a longer text the shape is not looked at: the sample is in memory at once.
SAMPLE_CHARACTERS = 100_000
HOUR_FORMAT = "%Y-%m-%d-%H:%M"
FIRST_HOUR = "2026-11-01-00:00"


@dataclass(frozen=True)
class Hour:
    """An hour of UTC, half open.

    Args:
        start: Its first moment, without a zone as the database has it.
    """

    start: datetime.datetime

    @property
    def end(self) -> datetime.datetime:
        """The first moment that is no longer in it."""
        return self.start + datetime.timedelta(hours=1)

    @property
    def key(self) -> str:
        """How it is written as a partition, for example `2026-11-01-05:00`."""
        return self.start.strftime(HOUR_FORMAT)


def hour_of_key(key: str) -> Hour | None:
    """Returns the hour that is written as `key`, None if it is none."""
    try:
        moment = datetime.datetime.strptime(key, HOUR_FORMAT)  # noqa: DTZ007 - UTC without a zone, as in the database
    except ValueError:
        return None
    return Hour(moment) if Hour(moment).key == key and moment.minute == 0 else None


def present() -> datetime.datetime:
    """Returns the present in UTC without a zone, as the database has times."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def open_hour() -> Hour:
    """Returns the hour that has not ended."""
    return Hour(present().replace(minute=0, second=0, microsecond=0))


def hours_between(first: Hour, last: Hour) -> list[Hour]:
    """Returns the hours from one to another, both included."""
    count = (last.end - first.start) // datetime.timedelta(hours=1)
    return [Hour(first.start + datetime.timedelta(hours=number)) for number in range(count)]


def created_within(start: datetime.datetime, end: datetime.datetime) -> sa.ColumnElement[bool]:
    """Returns the condition that an item was created from one moment on and before another."""
    return sa.and_(items.c.created_datetime >= start, items.c.created_datetime < end)


def first_hour(environment: Mapping[str, str]) -> Hour:
    """Returns the first hour of the pipeline: `BATCH_FIRST_HOUR`, or the start of November 2026.

    Raises:
        SettingsError: The variable is not an hour.
    """
    text = environment.get("BATCH_FIRST_HOUR") or FIRST_HOUR
    hour = hour_of_key(text)
    if hour is None:
        raise SettingsError(f"BATCH_FIRST_HOUR is {text!r}: write an hour of UTC as 2026-11-01-05:00.")
    return hour


@dataclass(frozen=True)
class HourCounts:
    """The items of an hour by what became of them: items = predicted + failed + pending."""

    hour: Hour
    items: int
    predicted: int
    failed: int

    @property
    def pending(self) -> int:
        """Items with no prediction that have not failed either."""
        return self.items - self.predicted - self.failed


@dataclass(frozen=True)
class Stock:
    """What the service wrote in an hour.

    Args:
        counts: The items by what became of them.
        first: Id and creation of the first item, None for an hour without items.
        last: Id and creation of the last item, None for an hour without items.
        shapes: Of a sample of the items, how many have values of which shape, for example
            `{"list of 4": 99, "text": 1}`.
    """

    counts: HourCounts
    first: tuple[int, datetime.datetime] | None
    last: tuple[int, datetime.datetime] | None
    shapes: dict[str, int]


def take_stock(engine: sa.Engine, hour: Hour) -> Stock:
    """Counts the items of an hour and looks at a sample of them; copies nothing.

    Raises:
        DatabaseError: A table is missing, or the server is away.
    """
    within = created_within(hour.start, hour.end)
    with snapshot(engine) as connection:
        counts = _counts(connection, hour.start, hour.end).get(hour.start, HourCounts(hour, 0, 0, 0))
        ends = [
            connection.execute(
                sa.select(items.c.id, items.c.created_datetime).where(within).order_by(*order).limit(1)
            ).one_or_none()
            for order in (
                (items.c.created_datetime, items.c.id),
                (items.c.created_datetime.desc(), items.c.id.desc()),
            )
        ]
        text = items.c["values"]
        short = sa.case((sa.func.length(text) <= SAMPLE_CHARACTERS, text))
        sample = connection.execute(sa.select(short).where(within).limit(SAMPLE_ROWS)).scalars()
        shapes = Counter(_shape(text) for text in sample)
    first, last = ((row.id, row.created_datetime) if row else None for row in ends)
    return Stock(counts, first, last, dict(shapes.most_common()))


def count_by_hour(engine: sa.Engine, start: datetime.datetime, end: datetime.datetime) -> list[HourCounts]:
    """Counts the items of each hour that has any, oldest first, all from one moment's view of the tables.

    Args:
        engine: The database.
        start: Items created from here on, in UTC without a zone.
        end: Items created before, in UTC without a zone.
    """
    with snapshot(engine) as connection:
        return sorted(_counts(connection, start, end).values(), key=lambda counts: counts.hour.start)


def model_versions(engine: sa.Engine, start: datetime.datetime, end: datetime.datetime) -> dict[Hour, str]:
    """Returns with which model each hour was scored last, as its summary has it."""
    statement = sa.select(run_summary.c.hour, run_summary.c.model_version).where(
        run_summary.c.hour >= start, run_summary.c.hour < end, run_summary.c.model_version.is_not(None)
    )
    with snapshot(engine) as connection:
        return {Hour(row.hour): row.model_version for row in connection.execute(statement)}


def first_created(engine: sa.Engine) -> datetime.datetime | None:
    """Returns when the oldest item was created, in UTC without a zone, None for a table without items."""
    return _created(engine, sa.func.min(items.c.created_datetime))


def last_created(engine: sa.Engine) -> datetime.datetime | None:
    """Returns when the newest item was created, in UTC without a zone, None for a table without items."""
    return _created(engine, sa.func.max(items.c.created_datetime))


def _created(engine: sa.Engine, which: sa.ColumnElement[datetime.datetime]) -> datetime.datetime | None:
    with snapshot(engine) as connection:
        found: datetime.datetime | None = connection.execute(sa.select(which)).scalar()
    return found


def _counts(
    connection: sa.Connection, start: datetime.datetime, end: datetime.datetime
) -> dict[datetime.datetime, HourCounts]:
    hour = _hour_of(connection)
    counted = (
        sa.select(hour.label("start"), sa.func.count().label("items"), sa.func.count(items.c.prediction).label("done"))
        .where(created_within(start, end))
        .group_by(hour)
    )
    failed = (
        sa.select(hour.label("start"), sa.func.count().label("failed"))
        .select_from(failed_items.join(items, items.c.id == failed_items.c.item_id))
        .where(created_within(start, end), items.c.prediction.is_(None))
        .group_by(hour)
    )
    # Both in one transaction: they see the same moment.
    rows = connection.execute(counted).all()
    failures = {row.start: row.failed for row in connection.execute(failed)}
    found = {}
    for row in rows:
        moment = datetime.datetime.fromisoformat(row.start)
        found[moment] = HourCounts(Hour(moment), row.items, row.done, failures.get(row.start, 0))
    return found


def _hour_of(connection: sa.Connection) -> sa.ColumnElement[str]:
    if connection.dialect.name == "sqlite":
        return sa.func.strftime("%Y-%m-%d %H:00:00", items.c.created_datetime)
    return sa.func.date_format(items.c.created_datetime, "%Y-%m-%d %H:00:00")


def _shape(text: str | None) -> str:
    if text is None:
        return f"more than {SAMPLE_CHARACTERS:,} characters"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "not JSON"
    if isinstance(value, list):
        return f"list of {len(value)}"
    return "null" if value is None else type(value).__name__
