"""Removing hours whose time is up, in small steps beside a service that goes on writing. No Dagster in here.

What is left of an hour is right for every reader, wherever a removal ends: an item goes together with its row in
`failed_items`, without which it would count as pending, and what was recorded of the hour goes last, when no item of it
is there.
"""

import datetime
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot, writing
from batch_assets.database.connection.statements import batch_table, checksum_sql, column_sql, condition_sql
from batch_assets.database.connection.throttle import Throttle
from batch_assets.database.records.hour_counts import created_within
from batch_assets.database.records.hour_lock import HourLock
from batch_assets.database.records.remaining import remaining_by_hour
from batch_assets.database.records.summaries import hours_with_summary
from batch_assets.database.schema.tables import (
    PipelineTables,
    actuals,
    challenger_hours,
    challenger_predictions,
    failed_items,
    hour_locks,
    hour_models,
    hour_profiles,
    hour_quality,
    hour_requests,
    item_models,
    registrations,
    run_summary,
)
from batch_assets.errors import HourBusyError
from batch_assets.hours import Hour
from batch_assets.retrying.decision import FAILED_RUNS_AGE, LONGEST_PAUSE, Remaining

# Fewer than a run writes at once: the service waits for an item that is being removed only if it changes that one.
BATCH_ROWS = 2_000
# Younger hours the sensor may yet request: after its longest pause, or since a run of the last day has failed.
LEAST_AGE = LONGEST_PAUSE + FAILED_RUNS_AGE

# Why something of an hour stays.
IN_USE, UNSCORED, LOCKED = "in use", "unscored", "locked"

# What is recorded of an hour, by its start.
_OF_HOURS = (
    run_summary,
    hour_requests,
    hour_profiles,
    hour_quality,
    hour_models,
    item_models,
    challenger_predictions,
    challenger_hours,
)
_BEFORE_ALL_IDS = -(2**63)


@dataclass(frozen=True)
class PrunedHour:
    """What became of an old hour.

    Args:
        hour: The hour.
        removed: How many of its items were removed.
        left: Why something of it stays: `in use` by a run, `unscored` items, items that are `locked` by a transaction
            or came meanwhile; None if nothing does.
        items: How many items are the reason.
    """

    hour: Hour
    removed: int = 0
    left: str | None = None
    items: int = 0


def old_hours(engine: sa.Engine, tables: PipelineTables, end: datetime.datetime) -> list[Hour]:
    """Returns the hours before a moment of which there are items or rows of ours, oldest first.

    Looks up one item an hour, whatever the hours hold.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        end: The start of an hour, in UTC without a zone.
    """
    items = tables.items
    gone = failed_items.outerjoin(items, items.c.id == failed_items.c.item_id)
    looked_up: list[sa.Select[datetime.datetime]] = [
        sa.select(table.c.hour).where(tables.has(table), table.c.hour < end) for table in (*_OF_HOURS, hour_locks)
    ]
    looked_up.append(
        sa.select(failed_items.c.hour)
        .select_from(gone)
        .where(tables.has(failed_items), failed_items.c.hour < end, items.c.id.is_(None))
    )
    with snapshot(engine) as connection:
        starts = set(_starts_of_items(connection, items, end))
        for statement in looked_up:
            starts.update(connection.execute(statement.distinct()).scalars())
    return [Hour(start) for start in sorted(starts)]


def _starts_of_items(connection: sa.Connection, items: sa.Table, end: datetime.datetime) -> Iterator[datetime.datetime]:
    first = sa.select(sa.func.min(items.c.created_datetime))
    created = connection.execute(first).scalar()
    while created is not None and created < end:
        hour = Hour(created.replace(minute=0, second=0, microsecond=0))
        yield hour.start
        created = connection.execute(first.where(created_within(items, hour.end, end))).scalar()


def existing_hours(engine: sa.Engine, tables: PipelineTables, hours: Collection[Hour]) -> set[Hour]:
    """Returns which of these hours have items or a summary."""
    items = tables.items
    there = hours_with_summary(engine, tables, hours)
    with snapshot(engine) as connection:
        for hour in set(hours) - there:
            within = created_within(items, hour.start, hour.end)
            if connection.execute(sa.select(items.c.id).where(within).limit(1)).first():
                there.add(hour)
    return there


def remove_registrations(
    engine: sa.Engine, tables: PipelineTables, before: datetime.datetime, throttle: Throttle
) -> int:
    """Forgets the idempotency keys that were used before a moment, and returns how many there were.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        before: In UTC without a zone.
        throttle: Has each transaction wait for its turn.
    """
    key, removed = registrations.c.idempotency_key, 0
    of_pipeline = tables.has(registrations)
    old = sa.select(key).where(of_pipeline, registrations.c.registered_at < before).limit(BATCH_ROWS)
    while True:
        throttle.before_write(BATCH_ROWS)
        with writing(engine) as connection:
            keys = connection.execute(old).scalars().all()
            if not keys:
                return removed
            removed += connection.execute(sa.delete(registrations).where(of_pipeline, key.in_(keys))).rowcount


class Pruning:
    """Removes hours, each under its lock.

    Args:
        engine: The database.
        tables: Those of each pipeline that scores these items.
        throttle: Has each transaction wait for its turn.
        on_progress: Is told what a person should know.
        unscored_too: Whether to remove items that nobody has scored; without it, an hour that has any stays as it is.
    """

    def __init__(
        self,
        engine: sa.Engine,
        tables: Sequence[PipelineTables],
        throttle: Throttle,
        on_progress: Callable[[str], None],
        *,
        unscored_too: bool,
    ) -> None:
        self._engine = engine
        self._tables = tables
        self._items = tables[0].items
        self._throttle = throttle
        self._on_progress = on_progress
        self._unscored_too = unscored_too
        # As who it holds the hours: two that run at once are two.
        self._run_id = f"batch-assets prune {uuid4()}"

    def remove(self, hour: Hour) -> PrunedHour:
        """Removes an hour: its items, then what was recorded of it.

        A removal that was interrupted is finished by the next one.
        """
        removed = 0
        try:
            with self._locked(hour) as locks:
                unscored = self._unscored(hour)
                if unscored:
                    return PrunedHour(hour, 0, UNSCORED, unscored)
                for count in self._remove_items(hour, locks):
                    removed += count
                left = self._count(hour)
                if left:
                    unscored = self._unscored(hour)
                    return PrunedHour(hour, removed, UNSCORED if unscored else LOCKED, unscored or left)
                self._remove_records(hour, locks)
        except HourBusyError:
            return PrunedHour(hour, removed, IN_USE)
        return PrunedHour(hour, removed)

    @contextmanager
    def _locked(self, hour: Hour) -> Iterator[list[HourLock]]:
        """Holds the hour of every pipeline."""
        locks = [
            HourLock(self._engine, tables, hour, self._run_id, wait=False, on_progress=self._on_progress)
            for tables in self._tables
        ]
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock.acquire())
            yield locks

    def look(self, hour: Hour) -> PrunedHour:
        """Returns what `remove` would do, as far as nobody holds the hour."""
        unscored = self._unscored(hour)
        return PrunedHour(hour, 0, UNSCORED, unscored) if unscored else PrunedHour(hour, self._count(hour))

    def _unscored(self, hour: Hour) -> int:
        """Counts the items that nobody has scored with the values that they have, if these are to stay."""
        if self._unscored_too:
            return 0
        return max(self._unscored_by(tables, hour) for tables in self._tables)

    def _unscored_by(self, tables: PipelineTables, hour: Hour) -> int:
        left = remaining_by_hour(self._engine, tables, hour, hour.end, max_attempts=1).get(hour, Remaining())
        return left.pending + left.corrected

    def _count(self, hour: Hour) -> int:
        counted = (
            sa.select(sa.func.count()).select_from(self._items).where(created_within(self._items, hour.start, hour.end))
        )
        with snapshot(self._engine) as connection:
            return connection.execute(counted).scalar_one()

    def _remove_items(self, hour: Hour, locks: Sequence[HourLock]) -> Iterator[int]:
        """Removes the items of an hour batch by batch; yields how many each time."""
        after = (hour.start, _BEFORE_ALL_IDS)
        while batch := self._next_items(hour, after):
            last = batch[-1]
            after = (last.created_datetime, last.id)
            self._throttle.before_write(len(batch))
            with writing(self._engine) as connection:
                for lock in locks:
                    lock.check(connection)
                keys = self._lock_items(connection, hour, sorted(row.id for row in batch))
                for tables in self._tables:
                    _delete(connection, failed_items.c.item_id, keys, tables.has(failed_items))
                    _delete(connection, actuals.c.item_id, keys, tables.has(actuals))
                _delete(connection, self._items.c.id, keys)
            yield len(keys)

    def _next_items(self, hour: Hour, after: tuple[datetime.datetime, int]) -> Sequence[sa.Row[Any, Any]]:
        """Reads on in the index of the times, which has the keys in it too: nothing is sorted, nothing read twice."""
        (moment, last_key), key, created = after, self._items.c.id, self._items.c.created_datetime
        further = sa.or_(sa.and_(created == moment, key > last_key), sa.and_(created > moment, created < hour.end))
        statement = sa.select(key, created).where(further).order_by(created, key).limit(BATCH_ROWS)
        with snapshot(self._engine) as connection:
            return connection.execute(statement).all()

    def _lock_items(self, connection: sa.Connection, hour: Hour, keys: Sequence[int]) -> Sequence[int]:
        """Locks these items and returns which may be removed; passes over those that somebody else has locked."""
        sqlite = connection.dialect.name == "sqlite"
        batch, parameters = batch_table(connection, ("row_key",), [(key,) for key in keys])
        mark = "?" if sqlite else "%s"
        table = connection.dialect.identifier_preparer.format_table(self._items)
        key, created = (column_sql(connection, self._items.c[name]) for name in ("id", "created_datetime"))
        condition = f"{created} >= {mark} AND {created} < {mark}"
        if not self._unscored_too:
            condition += "".join(f" AND {_is_scored(connection, tables)}" for tables in self._tables)
        found = connection.exec_driver_sql(
            f"SELECT {key} FROM {batch} {'JOIN' if sqlite else 'STRAIGHT_JOIN'} {table} ON {key} = batch.row_key "
            f"WHERE {condition} {'' if sqlite else 'FOR UPDATE SKIP LOCKED'}",
            (*parameters, str(hour.start), str(hour.end)),
        )
        return found.scalars().all()

    def _remove_records(self, hour: Hour, locks: Sequence[HourLock]) -> None:
        self._throttle.before_write(1)
        with writing(self._engine) as connection:
            for lock in locks:
                lock.check(connection)
            for tables in self._tables:
                _remove_records_of(connection, tables, hour)


def _is_scored(connection: sa.Connection, tables: PipelineTables) -> str:
    """Returns the condition in SQL that an item has a prediction, or has failed with the values that it has."""
    key, values, prediction = (column_sql(connection, tables.items.c[name]) for name in ("id", "values", "prediction"))
    return (
        f"({prediction} IS NOT NULL OR EXISTS (SELECT * FROM failed_items WHERE item_id = {key} AND "
        f"{condition_sql(connection, tables.has(failed_items))} AND "
        f"values_checksum = {checksum_sql(connection, values)}))"
    )


def _remove_records_of(connection: sa.Connection, tables: PipelineTables, hour: Hour) -> None:
    items, of_pipeline = tables.items, tables.has
    of_hour = sa.select(failed_items.c.item_id).where(of_pipeline(failed_items), failed_items.c.hour == hour.start)
    deleted_by_the_service = of_hour.outerjoin(items, items.c.id == failed_items.c.item_id).where(items.c.id.is_(None))
    keys = connection.execute(deleted_by_the_service).scalars().all()
    _delete(connection, failed_items.c.item_id, keys, of_pipeline(failed_items))
    for table in _OF_HOURS:
        connection.execute(sa.delete(table).where(of_pipeline(table), table.c.hour == hour.start))


def _delete(
    connection: sa.Connection,
    column: sa.Column[Any],
    keys: Sequence[int],
    condition: sa.ColumnElement[bool] | None = None,
) -> None:
    """Deletes rows by their primary key, looking up one by one.

    By a list of keys the server may lock the row that follows, too, and waits for whoever has it.

    Args:
        connection: The database.
        column: The primary key, or its last column.
        keys: The values in it.
        condition: What the other columns of the key are.
    """
    if not keys:
        return
    batch, parameters = batch_table(connection, ("row_key",), [(value,) for value in keys])
    key, table = column_sql(connection, column), connection.dialect.identifier_preparer.format_table(column.table)
    further = "" if condition is None else f"{condition_sql(connection, condition)} AND "
    statement = f"DELETE FROM {table} USING {batch} STRAIGHT_JOIN {table} ON {further}{key} = batch.row_key"
    if connection.dialect.name == "sqlite":
        statement = f"DELETE FROM {table} WHERE {further}{key} IN (SELECT row_key FROM {batch})"
    connection.exec_driver_sql(statement, parameters)
