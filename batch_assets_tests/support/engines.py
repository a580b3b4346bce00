"""The engine of the running test's database, and the table of the items in it."""

import sqlalchemy as sa

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.schema.tables import item_table
from batch_assets.pipeline import ITEM_TABLE
from batch_assets.settings.database import database_settings
from batch_assets.settings.environment import environment

ITEMS = item_table(ITEM_TABLE)


def engine_from_environment() -> sa.Engine:
    """The engine of the database that the environment names."""
    return engine_for(database_settings(environment()))


def connections_in_use() -> int:
    """How many connections of that engine somebody has and has not given back."""
    pool = engine_from_environment().pool
    assert isinstance(pool, sa.QueuePool)
    return pool.checkedout()
