"""The summaries of hours, as they stand in `run_summary`."""

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.database.connection.engine import snapshot
from batch_assets.database.schema.tables import run_summary
from batch_assets.hours import Hour

_PARAMETERS = 1000


def hours_with_summary(engine: sa.Engine, hours: Collection[Hour]) -> set[Hour]:
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


def read_summaries(engine: sa.Engine, before: Hour | None, count: int) -> Sequence[sa.Row[Any]]:
    """Reads rows of `run_summary`, the newest hours first.

    Args:
        engine: The database.
        before: Older hours than this only; None for the newest.
        count: How many at the most.
    """
    page = sa.select(run_summary).order_by(run_summary.c.hour.desc()).limit(count)
    if before:
        page = page.where(run_summary.c.hour < before.start)
    with snapshot(engine) as connection:
        return connection.execute(page).all()


def read_summary(engine: sa.Engine, hour: Hour) -> sa.Row[Any] | None:
    """Returns the row of an hour, None if it was not summed up."""
    with snapshot(engine) as connection:
        return connection.execute(sa.select(run_summary).where(run_summary.c.hour == hour.start)).one_or_none()
