"""The engine of the running test's database, and the tables in it of the pipeline of the environment."""

import time
from typing import TYPE_CHECKING

import pymysql
import sqlalchemy as sa

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.schema.tables import item_table, pipeline_tables
from batch_assets.pipeline import ITEM_TABLE, OF_ENVIRONMENT
from batch_assets.settings.database import database_settings
from batch_assets.settings.environment import environment
from batch_assets_tests.support.servers import Server

if TYPE_CHECKING:
    import pytest

ITEMS = item_table(ITEM_TABLE)
TABLES = pipeline_tables(OF_ENVIRONMENT)


def engine_from_environment() -> sa.Engine:
    """The engine of the database that the environment names."""
    return engine_for(database_settings(environment()))


def lose_connections_on_their_return(patch: "pytest.MonkeyPatch", server: Server) -> None:
    """Has the server end each connection when all is done with it, before the pool has it back."""
    rollback = pymysql.connections.Connection.rollback

    def rollback_and_be_killed(connection: pymysql.connections.Connection) -> None:
        rollback(connection)
        number = connection.thread_id()  # type: ignore[no-untyped-call]
        server.execute(f"KILL {number}")
        while server.execute(f"SELECT 1 FROM {server.processlist} WHERE id = %s", number):
            time.sleep(0.01)

    patch.setattr(pymysql.connections.Connection, "rollback", rollback_and_be_killed)


def connections_in_use() -> int:
    """How many connections of that engine somebody has and has not given back."""
    pool = engine_from_environment().pool
    assert isinstance(pool, sa.QueuePool)
    return pool.checkedout()
