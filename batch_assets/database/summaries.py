"""The summaries of hours, as they stand in `run_summary`."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.database.engine import snapshot
from batch_assets.database.hours import Hour
from batch_assets.database.tables import run_summary


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
