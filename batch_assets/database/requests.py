"""What is left of the hours, looked up at the cost of what is left, and the bookkeeping of who requested them.

One statement takes an hour, so that the schedule and the sensor never both request it.
"""

import datetime
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from batch_assets.database.engine import snapshot
from batch_assets.database.hours import Hour, created_within
from batch_assets.database.pending import pending_sql
from batch_assets.database.statements import checksum_sql
from batch_assets.database.tables import ITEM_VALUES, failed_items, hour_requests, items, run_summary
from batch_assets.decision import PUT_BACK, HourRequest, Left
from batch_assets.errors import RetryError

_EPOCH = datetime.datetime(1970, 1, 1)  # noqa: DTZ001 - UTC without a zone, as in the database
_PARAMETERS = 1000
_LARGEST_ID = 2**63 - 1


def what_is_left(engine: sa.Engine, first: Hour, end: datetime.datetime, max_attempts: int) -> dict[Hour, Left]:
    """Returns what has no prediction, by hour; hours that have nothing of the kind are not in it.

    Reads an index that holds these items only, and the rows of the failed ones.

    Args:
        engine: The database.
        first: The first hour to look at.
        end: Items created before; the start of the open hour, say.
        max_attempts: How often an item may fail with the same values before it is given up.
    """
    with snapshot(engine) as connection:
        unpredicted = {row.number: row for row in connection.execute(_unpredicted(connection, first.start, end))}
        failed = {row.number: row for row in connection.execute(_failed(connection, first.start, end, max_attempts))}
    left = {}
    for number in unpredicted.keys() | failed.keys():
        row, failures = unpredicted.get(number), failed.get(number)
        every, again, corrected = (
            (failures.every, int(failures.again), int(failures.corrected)) if failures else (0, 0, 0)
        )
        pending, last = (row.every - every, row.last_id) if row else (0, 0)
        # DECIMAL and None are what servers make of sums and of hours that are not there.
        left[Hour(_EPOCH + datetime.timedelta(hours=int(number)))] = Left(
            pending, last, again, corrected, every - again
        )
    return left


def _unpredicted(
    connection: sa.Connection, start: datetime.datetime, end: datetime.datetime
) -> sa.Select[Any, Any, Any]:
    number = _number_of_hour(connection)
    return (
        sa.select(number.label("number"), sa.func.count().label("every"), sa.func.max(items.c.id).label("last_id"))
        .where(sa.text(pending_sql(connection)), created_within(start, end))
        .group_by(number)
    )


def _failed(
    connection: sa.Connection, start: datetime.datetime, end: datetime.datetime, max_attempts: int
) -> sa.Select[Any, Any, Any, Any]:
    number, corrected = _number_of_hour(connection), _was_corrected(connection)
    again = sa.or_(failed_items.c.attempts < max_attempts, corrected)
    return (
        sa.select(
            number.label("number"),
            sa.func.count().label("every"),
            sa.func.sum(sa.case((again, 1), else_=0)).label("again"),
            sa.func.sum(sa.case((corrected, 1), else_=0)).label("corrected"),
        )
        .select_from(failed_items.join(items, items.c.id == failed_items.c.item_id))
        .where(items.c.prediction.is_(None), created_within(start, end))
        .group_by(number)
    )


def failed_rows(engine: sa.Engine, count: int, max_attempts: int) -> Sequence[sa.Row[Any]]:
    """Returns the failed items that failed last, latest first.

    Args:
        engine: The database.
        count: How many at the most.
        max_attempts: How often an item may fail with the same values before it is given up.

    Returns:
        Rows with `item_id`, `hour`, `code`, `message`, `attempts` and `given_up`.
    """
    table = failed_items.c
    with snapshot(engine) as connection:
        given_up = sa.and_(table.attempts >= max_attempts, sa.not_(_was_corrected(connection)))
        statement = (
            sa.select(table.item_id, table.hour, table.code, table.message, table.attempts, given_up.label("given_up"))
            .select_from(failed_items.join(items, items.c.id == table.item_id))
            .where(items.c.prediction.is_(None))
            .order_by(table.last_failed_at.desc(), table.item_id.desc())
            .limit(count)
        )
        return connection.execute(statement).all()


def summed_up(engine: sa.Engine, hours: Collection[Hour]) -> set[Hour]:
    """Returns which of these hours have a row in `run_summary`."""
    starts = [hour.start for hour in hours]
    found: set[Hour] = set()
    with snapshot(engine) as connection:
        for position in range(0, len(starts), _PARAMETERS):
            part = run_summary.c.hour.in_(starts[position : position + _PARAMETERS])
            found.update(
                Hour(start) for start in connection.execute(sa.select(run_summary.c.hour).where(part)).scalars()
            )
    return found


def read_requests(engine: sa.Engine) -> dict[Hour, HourRequest]:
    """Returns the bookkeeping of all hours that have any."""
    with snapshot(engine) as connection:
        rows = connection.execute(sa.select(hour_requests)).mappings().all()
    return {Hour(row["hour"]): HourRequest(**{name: row[name] for name in row if name != "hour"}) for row in rows}


def claim(engine: sa.Engine, hour: Hour, before: HourRequest | None, after: HourRequest) -> bool:
    """Changes the bookkeeping of an hour, if it still is what the change was decided on.

    Args:
        engine: The database.
        hour: The hour.
        before: Its bookkeeping as it was read; None if it had none.
        after: Its bookkeeping from now on.

    Returns:
        Whether that was done; if not, somebody else has taken the hour meanwhile.
    """
    change: sa.Insert | sa.Update = sa.update(hour_requests).where(_is_still(hour, before)).values(**asdict(after))
    with engine.begin() as connection:
        if before is None:
            ignore = "OR IGNORE" if connection.dialect.name == "sqlite" else "IGNORE"
            change = sa.insert(hour_requests).prefix_with(ignore).values(hour=hour.start, **asdict(after))
        return connection.execute(change).rowcount == 1


def clear(engine: sa.Engine, hour: Hour, before: HourRequest) -> bool:
    """Takes an hour out of the bookkeeping, if that still is what it was; returns whether it was."""
    with engine.begin() as connection:
        return connection.execute(sa.delete(hour_requests).where(_is_still(hour, before))).rowcount == 1


def _is_still(hour: Hour, before: HourRequest | None) -> sa.ColumnElement[bool]:
    condition = hour_requests.c.hour == hour.start
    if before is None:
        return condition
    return sa.and_(
        condition,
        hour_requests.c.requests == before.requests,
        hour_requests.c.requested_at == before.requested_at,
        hour_requests.c.given_up_at.is_not_distinct_from(before.given_up_at),
    )


def put_back(
    engine: sa.Engine, hours: Collection[Hour], item_ids: Collection[int], now: datetime.datetime
) -> tuple[int, list[Hour]]:
    """Has failed items and hours tried again as if they never had been: all that is named, or nothing.

    Args:
        engine: The database.
        hours: Hours, with all their failed items.
        item_ids: Failed items, with their hours.
        now: The present, in UTC without a zone.

    Returns:
        How many failed items are pending again, and the hours that the sensor requests again.

    Raises:
        RetryError: An item is unknown or has not failed, or an hour has nothing that could be tried again.
    """
    with engine.begin() as connection:
        wanted = set(hours) | {_hour_of_failed(connection, item_id) for item_id in item_ids}
        of_hours = failed_items.c.hour.in_([hour.start for hour in hours])
        for hour in hours:
            _check_something_left(connection, hour)
        these = sa.or_(of_hours, failed_items.c.item_id.in_(item_ids))
        done = connection.execute(sa.delete(failed_items).where(these)).rowcount
        moment = now.replace(microsecond=0) + datetime.timedelta(seconds=1)
        for hour in wanted:
            connection.execute(sa.delete(hour_requests).where(hour_requests.c.hour == hour.start))
            row = HourRequest(0, PUT_BACK, "", moment)
            connection.execute(sa.insert(hour_requests).values(hour=hour.start, **asdict(row)))
    return done, sorted(wanted, key=lambda hour: hour.start)


def _hour_of_failed(connection: sa.Connection, item_id: int) -> Hour:
    statement = (
        sa.select(items.c.id, items.c.prediction.is_not(None).label("predicted"), failed_items.c.hour)
        .select_from(items.outerjoin(failed_items, items.c.id == failed_items.c.item_id))
        .where(items.c.id == item_id)
    )
    row = connection.execute(statement).one_or_none() if item_id <= _LARGEST_ID else None
    if row is None:
        raise RetryError(f"There is no item {item_id}: nothing was put back. `batch-assets status --failed` lists ids.")
    if row.hour is None or row.predicted:
        state = "has a prediction" if row.predicted else "is pending, and is scored with its hour"
        raise RetryError(f"The item {item_id} has not failed, it {state}: nothing was put back.")
    return Hour(row.hour)


def _check_something_left(connection: sa.Connection, hour: Hour) -> None:
    created = created_within(hour.start, hour.end)
    looked_up = (
        sa.select(hour_requests.c.hour).where(hour_requests.c.hour == hour.start),
        sa.select(failed_items.c.item_id).where(failed_items.c.hour == hour.start).limit(1),
        sa.select(items.c.id).where(sa.text(pending_sql(connection)), created).limit(1),
    )
    if any(connection.execute(statement).first() for statement in looked_up):
        return
    there = connection.execute(sa.select(items.c.id).where(created).limit(1)).first()
    state = "all its items have predictions" if there else "it has no items"
    raise RetryError(
        f"There is nothing to try again in the hour {hour.key}, {state}: nothing was put back. To score it all the "
        "same, materialise it."
    )


def _was_corrected(connection: sa.Connection) -> sa.ColumnElement[bool]:
    current: sa.ColumnElement[int] = sa.literal_column(checksum_sql(connection, ITEM_VALUES))
    return failed_items.c.values_checksum != current


def _number_of_hour(connection: sa.Connection) -> sa.ColumnElement[int]:
    """Returns the number of an item's hour since 1970, cheaper to group by than a text."""
    if connection.dialect.name == "sqlite":
        return sa.cast(sa.func.strftime("%s", items.c.created_datetime), sa.Integer).op("/")(3600)
    return sa.func.unix_timestamp(items.c.created_datetime).op("DIV")(3600)
