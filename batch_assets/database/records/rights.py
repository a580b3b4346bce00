"""Whether this account may do what a run does to the tables that pipelines share."""

import sqlalchemy as sa

from batch_assets.database.connection.engine import writing
from batch_assets.database.schema.tables import (
    baselines,
    failed_items,
    hour_locks,
    hour_models,
    hour_profiles,
    hour_requests,
    item_models,
    promotions,
    run_summary,
)

_READ = (baselines, promotions)
_REPLACED = (failed_items, hour_locks, hour_models, hour_profiles, hour_requests, item_models, run_summary)
_UPDATED = (failed_items, hour_requests)


def check_rights(engine: sa.Engine) -> None:
    """Has the server check the rights and the columns of statements that concern no row.

    Raises:
        DatabaseError: A right, a table or a column is missing.
    """
    with writing(engine) as connection:
        for table in _READ:
            connection.execute(sa.select(table).where(sa.false()))
        for table in _REPLACED:
            names = [column.name for column in table.columns]
            connection.execute(sa.insert(table).from_select(names, sa.select(table).where(sa.false())))
            connection.execute(sa.delete(table).where(sa.false()))
        for table in _UPDATED:
            column = next(column for column in table.columns if not column.primary_key)
            connection.execute(sa.update(table).values({column: column}).where(sa.false()))
