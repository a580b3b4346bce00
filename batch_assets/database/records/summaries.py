"""The summaries of hours, as they stand in `run_summary`."""

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot
from batch_assets.database.schema.tables import PipelineTables, run_summary
from batch_assets.hours import Hour

_PARAMETERS = 1000


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
    page = sa.select(run_summary).where(tables.has(run_summary)).order_by(run_summary.c.hour.desc()).limit(count)
    if before:
        page = page.where(run_summary.c.hour < before.start)
    with snapshot(engine) as connection:
        return connection.execute(page).all()


def read_summary(engine: sa.Engine, tables: PipelineTables, hour: Hour) -> sa.Row[Any] | None:
    """Returns the row of an hour, None if it was not summed up."""
    of_hour = sa.and_(tables.has(run_summary), run_summary.c.hour == hour.start)
    with snapshot(engine) as connection:
        return connection.execute(sa.select(run_summary).where(of_hour)).one_or_none()
