"""What has no prediction yet, looked up at the cost of what there is of it."""

import datetime
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot
from batch_assets.database.connection.statements import checksum_of
from batch_assets.database.records.hour_counts import created_within, hour_of_number, hours_since_epoch
from batch_assets.database.schema.pending import is_pending
from batch_assets.database.schema.tables import PipelineTables, failed_items
from batch_assets.hours import Hour
from batch_assets.retrying.decision import Remaining


def remaining_by_hour(
    engine: sa.Engine, tables: PipelineTables, first: Hour, end: datetime.datetime, max_attempts: int
) -> dict[Hour, Remaining]:
    """Returns what has no prediction, by hour; hours that have nothing of the kind are not in it.

    Reads an index that holds these items only, and the rows of the failed ones.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        first: The first hour to look at.
        end: Items created before; the start of the open hour, say.
        max_attempts: How often an item may fail with the same values before it is given up.
    """
    with snapshot(engine) as connection:
        unpredicted = {
            row.number: row for row in connection.execute(_unpredicted(connection, tables.items, first.start, end))
        }
        failed = {
            row.number: row for row in connection.execute(_failed(connection, tables, first.start, end, max_attempts))
        }
    left = {}
    for number in unpredicted.keys() | failed.keys():
        row, failures = unpredicted.get(number), failed.get(number)
        every, again, corrected = (
            (failures.every, int(failures.again), int(failures.corrected)) if failures else (0, 0, 0)
        )
        pending, last = (row.every - every, row.last_id) if row else (0, 0)
        # DECIMAL and None are what servers make of sums and of hours that are not there.
        left[hour_of_number(number)] = Remaining(pending, last, again, corrected, every - again)
    return left


def _unpredicted(
    connection: sa.Connection, items: sa.Table, start: datetime.datetime, end: datetime.datetime
) -> sa.Select[Any, Any, Any]:
    number = hours_since_epoch(connection, items)
    return (
        sa.select(number.label("number"), sa.func.count().label("every"), sa.func.max(items.c.id).label("last_id"))
        .where(is_pending(connection, items), created_within(items, start, end))
        .group_by(number)
    )


def _failed(
    connection: sa.Connection,
    tables: PipelineTables,
    start: datetime.datetime,
    end: datetime.datetime,
    max_attempts: int,
) -> sa.Select[Any, Any, Any, Any]:
    items = tables.items
    number, corrected = hours_since_epoch(connection, items), _was_corrected(connection, items)
    again = sa.or_(failed_items.c.attempts < max_attempts, corrected)
    return (
        sa.select(
            number.label("number"),
            sa.func.count().label("every"),
            sa.func.sum(sa.case((again, 1), else_=0)).label("again"),
            sa.func.sum(sa.case((corrected, 1), else_=0)).label("corrected"),
        )
        .select_from(tables.items_with_failures)
        .where(items.c.prediction.is_(None), created_within(items, start, end))
        .group_by(number)
    )


def failed_rows(engine: sa.Engine, tables: PipelineTables, count: int, max_attempts: int) -> Sequence[sa.Row[Any]]:
    """Returns the failed items that failed last, latest first.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        count: How many at the most.
        max_attempts: How often an item may fail with the same values before it is given up.

    Returns:
        Rows with `item_id`, `hour`, `code`, `message`, `attempts` and `given_up`.
    """
    table, items = failed_items.c, tables.items
    with snapshot(engine) as connection:
        given_up = sa.and_(table.attempts >= max_attempts, sa.not_(_was_corrected(connection, items)))
        statement = (
            sa.select(table.item_id, table.hour, table.code, table.message, table.attempts, given_up.label("given_up"))
            .select_from(tables.items_with_failures)
            .where(items.c.prediction.is_(None))
            .order_by(table.last_failed_at.desc(), table.item_id.desc())
            .limit(count)
        )
        return connection.execute(statement).all()


def _was_corrected(connection: sa.Connection, items: sa.Table) -> sa.ColumnElement[bool]:
    return failed_items.c.values_checksum != checksum_of(connection, items.c["values"])
