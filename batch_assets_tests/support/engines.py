"""The engine of the running test's database."""

import sqlalchemy as sa

from batch_assets.database.connection.engine import engine_for
from batch_assets.settings.database import database_settings
from batch_assets.settings.environment import environment


def engine_from_environment() -> sa.Engine:
    """The engine of the database that the environment names."""
    return engine_for(database_settings(environment()))
