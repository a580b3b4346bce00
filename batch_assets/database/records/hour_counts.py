"""Hours of items: what stands in them."""

import datetime
import json
from collections import Counter
from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot
from batch_assets.database.schema.tables import PipelineTables, run_summary
from batch_assets.hours import Hour

SAMPLE_ROWS = 100
# Of a longer text the shape is not looked at: the sample is in memory at once.
SAMPLE_CHARACTERS = 100_000

_EPOCH = datetime.datetime(1970, 1, 1)  # noqa: DTZ001 - UTC without a zone, as in the database


def created_within(items: sa.Table, start: datetime.datetime, end: datetime.datetime) -> sa.ColumnElement[bool]:
    """Returns the condition that an item was created from one moment on and before another."""
    return sa.and_(items.c.created_datetime >= start, items.c.created_datetime < end)


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


def take_stock(engine: sa.Engine, tables: PipelineTables, hour: Hour) -> Stock:
    """Counts the items of an hour and looks at a sample of them; copies nothing.

    Raises:
        DatabaseError: A table is missing, or the server is away.
    """
    items = tables.items
    within = created_within(items, hour.start, hour.end)
    with snapshot(engine) as connection:
        counts = _counts(connection, tables, hour.start, hour.end).get(hour.start, HourCounts(hour, 0, 0, 0))
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


def count_by_hour(
    engine: sa.Engine, tables: PipelineTables, start: datetime.datetime, end: datetime.datetime
) -> list[HourCounts]:
    """Counts the items of each hour that has any, oldest first, all from one moment's view of the tables.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        start: Items created from here on, in UTC without a zone.
        end: Items created before, in UTC without a zone.
    """
    with snapshot(engine) as connection:
        return sorted(_counts(connection, tables, start, end).values(), key=lambda counts: counts.hour.start)


def model_versions(
    engine: sa.Engine, tables: PipelineTables, start: datetime.datetime, end: datetime.datetime
) -> dict[Hour, str]:
    """Returns with which model each hour was scored last, as its summary has it."""
    statement = sa.select(run_summary.c.hour, run_summary.c.model_version).where(
        tables.has(run_summary),
        run_summary.c.hour >= start,
        run_summary.c.hour < end,
        run_summary.c.model_version.is_not(None),
    )
    with snapshot(engine) as connection:
        return {Hour(row.hour): row.model_version for row in connection.execute(statement)}


def first_created(engine: sa.Engine, items: sa.Table) -> datetime.datetime | None:
    """Returns when the oldest item was created, in UTC without a zone, None for a table without items."""
    return _created(engine, sa.func.min(items.c.created_datetime))


def last_created(engine: sa.Engine, items: sa.Table) -> datetime.datetime | None:
    """Returns when the newest item was created, in UTC without a zone, None for a table without items."""
    return _created(engine, sa.func.max(items.c.created_datetime))


def _created(engine: sa.Engine, which: sa.ColumnElement[datetime.datetime]) -> datetime.datetime | None:
    with snapshot(engine) as connection:
        found: datetime.datetime | None = connection.execute(sa.select(which)).scalar()
    return found


def _counts(
    connection: sa.Connection, tables: PipelineTables, start: datetime.datetime, end: datetime.datetime
) -> dict[datetime.datetime, HourCounts]:
    items = tables.items
    number = hours_since_epoch(connection, items)
    counted = (
        sa.select(
            number.label("number"), sa.func.count().label("items"), sa.func.count(items.c.prediction).label("done")
        )
        .where(created_within(items, start, end))
        .group_by(number)
    )
    failed = (
        sa.select(number.label("number"), sa.func.count().label("failed"))
        .select_from(tables.items_with_failures)
        .where(created_within(items, start, end), items.c.prediction.is_(None))
        .group_by(number)
    )
    # Both in one transaction: they see the same moment.
    rows = connection.execute(counted).all()
    failures = {row.number: row.failed for row in connection.execute(failed)}
    counts = (HourCounts(hour_of_number(row.number), row.items, row.done, failures.get(row.number, 0)) for row in rows)
    return {of_hour.hour.start: of_hour for of_hour in counts}


def hour_of(connection: sa.Connection, items: sa.Table) -> sa.ColumnElement[str]:
    """Returns the start of the hour in which an item was created, as text in ISO format."""
    if connection.dialect.name == "sqlite":
        return sa.func.strftime("%Y-%m-%d %H:00:00", items.c.created_datetime)
    return sa.func.date_format(items.c.created_datetime, "%Y-%m-%d %H:00:00")


def hours_since_epoch(connection: sa.Connection, items: sa.Table) -> sa.ColumnElement[int]:
    """Returns the number of an item's hour since 1970, of which `hour_of_number` makes the hour.

    To group by it takes a third of what it takes to group by a text.
    """
    if connection.dialect.name == "sqlite":
        return sa.cast(sa.func.strftime("%s", items.c.created_datetime), sa.Integer).op("/")(3600)
    return sa.func.unix_timestamp(items.c.created_datetime).op("DIV")(3600)


def hour_of_number(number: int) -> Hour:
    """Returns the hour of a number of `hours_since_epoch`."""
    return Hour(_EPOCH + datetime.timedelta(hours=int(number)))


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
