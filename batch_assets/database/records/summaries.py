"""The summaries of hours, as they stand in `run_summary`."""

import datetime
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot
from batch_assets.database.schema.tables import PipelineTables, run_summary
from batch_assets.hours import Hour

_PARAMETERS = 1000


@dataclass(frozen=True)
class HoursOfModels:
    """Hours that some models have scored last.

    Args:
        count: How many there are.
        first: The oldest of them.
        last: The newest of them.
    """

    count: int
    first: Hour
    last: Hour


def hours_with_summary(engine: sa.Engine, tables: PipelineTables, hours: Collection[Hour]) -> set[Hour]:
    """Returns which of these hours have a row in `run_summary`."""
    starts = [hour.start for hour in hours]
    found: set[Hour] = set()
    with snapshot(engine) as connection:
        for position in range(0, len(starts), _PARAMETERS):
            part = sa.and_(tables.has(run_summary), run_summary.c.hour.in_(starts[position : position + _PARAMETERS]))
            found.update(
                Hour(start) for start in connection.execute(sa.select(run_summary.c.hour).where(part)).scalars()
            )
    return found


def read_summaries(engine: sa.Engine, tables: PipelineTables, before: Hour | None, count: int) -> Sequence[sa.Row[Any]]:
    """Reads rows of `run_summary`, the newest hours first.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        before: Older hours than this only; None for the newest.
        count: How many at the most.
    """
    return newest_hours(engine, tables, run_summary, before, count)


def newest_hours(
    engine: sa.Engine, tables: PipelineTables, table: sa.Table, before: Hour | None, count: int
) -> Sequence[sa.Row[Any]]:
    """Reads rows of a table that has one for each hour, the newest first.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        table: The table.
        before: Older hours than this only; None for the newest.
        count: How many at the most.
    """
    page = sa.select(table).where(tables.has(table)).order_by(table.c.hour.desc()).limit(count)
    if before:
        page = page.where(table.c.hour < before.start)
    with snapshot(engine) as connection:
        return connection.execute(page).all()


def read_summary(engine: sa.Engine, tables: PipelineTables, hour: Hour) -> sa.Row[Any] | None:
    """Returns the row of an hour, None if it was not summed up."""
    of_hour = sa.and_(tables.has(run_summary), run_summary.c.hour == hour.start)
    with snapshot(engine) as connection:
        return connection.execute(sa.select(run_summary).where(of_hour)).one_or_none()


def read_volumes(
    engine: sa.Engine, tables: PipelineTables, start: datetime.datetime, end: datetime.datetime
) -> dict[datetime.datetime, int]:
    """Returns how many items the hours had that start within some time, by their start.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        start: In UTC without a zone.
        end: That after the last of them.
    """
    columns = run_summary.c
    within = sa.and_(tables.has(run_summary), columns.hour >= start, columns.hour < end)
    with snapshot(engine) as connection:
        return {
            row.hour: row.items_
            for row in connection.execute(sa.select(columns.hour, columns["items"].label("items_")).where(within))
        }


def last_model(engine: sa.Engine, tables: PipelineTables) -> str | None:
    """Returns the model of the run that has ended last, None if no run has scored anything."""
    columns = run_summary.c
    newest = (
        sa.select(columns.model_version)
        .where(tables.has(run_summary), columns.model_version.is_not(None))
        .order_by(columns.finished_at.desc(), columns.hour.desc())
        .limit(1)
    )
    with snapshot(engine) as connection:
        version: str | None = connection.execute(newest).scalar()
    return version


def count_hours_of_other_models(
    engine: sa.Engine, tables: PipelineTables, first: Hour, version: str
) -> HoursOfModels | None:
    """Returns how many hours have predictions of another model, None if there are none.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        first: The first hour to look at.
        version: SHA-256 of the model.
    """
    hour = run_summary.c.hour
    counted = sa.select(
        sa.func.count().label("number"), sa.func.min(hour).label("first"), sa.func.max(hour).label("last")
    )
    with snapshot(engine) as connection:
        row = connection.execute(counted.where(_of_other_models(tables, first, version))).one()
    return HoursOfModels(row.number, Hour(row.first), Hour(row.last)) if row.number else None


def read_hours_of_other_models(
    engine: sa.Engine, tables: PipelineTables, first: Hour, version: str, count: int | None = None
) -> Sequence[sa.Row[Any, Any, Any, Any]]:
    """Reads the hours that have predictions of another model, the newest first.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        first: The first hour to look at.
        version: SHA-256 of the model.
        count: How many at the most; None for all.

    Returns:
        Rows with `hour`, `predicted`, `model_version` and `finished_at`.
    """
    columns = run_summary.c
    statement = (
        sa.select(columns.hour, columns.predicted, columns.model_version, columns.finished_at)
        .where(_of_other_models(tables, first, version))
        .order_by(columns.hour.desc())
        .limit(count)
    )
    with snapshot(engine) as connection:
        return connection.execute(statement).all()


def _of_other_models(tables: PipelineTables, first: Hour, version: str) -> sa.ColumnElement[bool]:
    columns = run_summary.c
    return sa.and_(
        tables.has(run_summary),
        columns.hour >= first.start,
        columns.predicted > 0,
        columns.model_version.is_not(None),
        sa.or_(columns.model_version != version, columns.predicted_by_other_models > 0),
    )
