"""The bookkeeping of who requested which hour, and having hours and items tried again.

One statement takes an hour, so that the schedule and the sensor never both request it.
"""

import dataclasses
import datetime
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot
from batch_assets.database.records.hour_counts import created_within
from batch_assets.database.schema.pending import is_pending
from batch_assets.database.schema.tables import PipelineTables, failed_items, hour_requests
from batch_assets.errors import RetryError
from batch_assets.hours import Hour
from batch_assets.retrying.decision import RESCORE, RESET, HourRequest

_LARGEST_ID = 2**63 - 1


def read_requests(engine: sa.Engine, tables: PipelineTables) -> dict[Hour, HourRequest]:
    """Returns the bookkeeping of all hours that have any."""
    with snapshot(engine) as connection:
        rows = connection.execute(sa.select(hour_requests).where(tables.has(hour_requests))).mappings().all()
    fields = [field.name for field in dataclasses.fields(HourRequest)]
    return {Hour(row["hour"]): HourRequest(**{name: row[name] for name in fields}) for row in rows}


def compare_and_set_request(
    engine: sa.Engine, tables: PipelineTables, hour: Hour, before: HourRequest | None, after: HourRequest
) -> bool:
    """Changes the bookkeeping of an hour, if it still is what the change was decided on.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        hour: The hour.
        before: Its bookkeeping as it was read; None if it had none.
        after: Its bookkeeping from now on.

    Returns:
        Whether that was done; if not, somebody else has taken the hour meanwhile.
    """
    change: sa.Insert | sa.Update = (
        sa.update(hour_requests).where(_is_still(tables, hour, before)).values(**asdict(after))
    )
    with engine.begin() as connection:
        if before is None:
            ignore = "OR IGNORE" if connection.dialect.name == "sqlite" else "IGNORE"
            row = _row(tables, hour, after)
            change = sa.insert(hour_requests).prefix_with(ignore).values(row)
        return connection.execute(change).rowcount == 1


def delete_request(engine: sa.Engine, tables: PipelineTables, hour: Hour, before: HourRequest) -> bool:
    """Takes an hour out of the bookkeeping, if that still is what it was; returns whether it was."""
    with engine.begin() as connection:
        return connection.execute(sa.delete(hour_requests).where(_is_still(tables, hour, before))).rowcount == 1


def _row(tables: PipelineTables, hour: Hour, request: HourRequest) -> dict[str, Any]:
    return {"pipeline": tables.pipeline, "hour": hour.start, **asdict(request)}


def _is_still(tables: PipelineTables, hour: Hour, before: HourRequest | None) -> sa.ColumnElement[bool]:
    condition = sa.and_(tables.has(hour_requests), hour_requests.c.hour == hour.start)
    if before is None:
        return condition
    return sa.and_(
        condition,
        hour_requests.c.requests == before.requests,
        hour_requests.c.requested_at == before.requested_at,
        hour_requests.c.given_up_at.is_not_distinct_from(before.given_up_at),
    )


def reset_attempts(
    engine: sa.Engine,
    tables: PipelineTables,
    hours: Collection[Hour],
    item_ids: Collection[int],
    now: datetime.datetime,
) -> tuple[int, list[Hour]]:
    """Has failed items and hours tried again as if they never had been: all that is named, or nothing.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        hours: Hours, with all their failed items.
        item_ids: Failed items, with their hours.
        now: The present, in UTC without a zone.

    Returns:
        How many failed items are pending again, and the hours that the sensor requests again.

    Raises:
        RetryError: An item is unknown or has not failed, or an hour has nothing that could be tried again.
    """
    with engine.begin() as connection:
        wanted = set(hours) | {_hour_of_failed(connection, tables, item_id) for item_id in item_ids}
        of_hours = failed_items.c.hour.in_([hour.start for hour in hours])
        for hour in hours:
            _check_something_left(connection, tables, hour)
        these = sa.and_(tables.has(failed_items), sa.or_(of_hours, failed_items.c.item_id.in_(item_ids)))
        done = connection.execute(sa.delete(failed_items).where(these)).rowcount
        moment = now.replace(microsecond=0) + datetime.timedelta(seconds=1)
        for hour in wanted:
            connection.execute(sa.delete(hour_requests).where(_is_still(tables, hour, None)))
            row = _row(tables, hour, HourRequest(0, RESET, "", moment))
            connection.execute(sa.insert(hour_requests).values(row))
    return done, sorted(wanted, key=lambda hour: hour.start)


def request_rescoring(
    engine: sa.Engine, tables: PipelineTables, hours: Collection[Hour], now: datetime.datetime
) -> list[Hour]:
    """Has hours scored again as a whole batch, by the next ticks of the sensor: all that are named, or none.

    One that waits for that already goes on waiting, as it is.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        hours: Hours that have been scored.
        now: The present, in UTC without a zone.

    Returns:
        The hours that were not waiting yet.
    """
    waiting = sa.and_(
        tables.has(hour_requests), hour_requests.c.reason == RESCORE, hour_requests.c.given_up_at.is_(None)
    )
    request = HourRequest(0, RESCORE, "", now.replace(microsecond=0) + datetime.timedelta(seconds=1))
    with engine.begin() as connection:
        there = {Hour(start) for start in connection.execute(sa.select(hour_requests.c.hour).where(waiting)).scalars()}
        new = sorted(set(hours) - there, key=lambda hour: hour.start)
        for hour in new:
            connection.execute(sa.delete(hour_requests).where(_is_still(tables, hour, None)))
        if new:
            connection.execute(sa.insert(hour_requests), [_row(tables, hour, request) for hour in new])
    return new


def _hour_of_failed(connection: sa.Connection, tables: PipelineTables, item_id: int) -> Hour:
    items = tables.items
    failed = sa.and_(items.c.id == failed_items.c.item_id, tables.has(failed_items))
    statement = (
        sa.select(items.c.id, items.c.prediction.is_not(None).label("predicted"), failed_items.c.hour)
        .select_from(items.outerjoin(failed_items, failed))
        .where(items.c.id == item_id)
    )
    row = connection.execute(statement).one_or_none() if item_id <= _LARGEST_ID else None
    if row is None:
        raise RetryError(f"There is no item {item_id}: nothing was put back. `batch-assets status --failed` lists ids.")
    if row.hour is None or row.predicted:
        state = "has a prediction" if row.predicted else "is pending, and is scored with its hour"
        raise RetryError(f"The item {item_id} has not failed, it {state}: nothing was put back.")
    return Hour(row.hour)


def _check_something_left(connection: sa.Connection, tables: PipelineTables, hour: Hour) -> None:
    items = tables.items
    created = created_within(items, hour.start, hour.end)
    failed = sa.and_(tables.has(failed_items), failed_items.c.hour == hour.start)
    looked_up = (
        sa.select(hour_requests.c.hour).where(_is_still(tables, hour, None)),
        sa.select(failed_items.c.item_id).where(failed).limit(1),
        sa.select(items.c.id).where(is_pending(connection, items), created).limit(1),
    )
    if any(connection.execute(statement).first() for statement in looked_up):
        return
    there = connection.execute(sa.select(items.c.id).where(created).limit(1)).first()
    state = "all its items have predictions" if there else "it has no items"
    raise RetryError(
        f"There is nothing to try again in the hour {hour.key}, {state}: nothing was put back. To score it all the "
        "same, materialise it."
    )
