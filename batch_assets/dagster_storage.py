"""Dagster's storage on MySQL as dagster.yaml names it: with connections that are kept.

A step of a backfill records each of its hours: what an event costs decides what an hour costs.
"""

from collections.abc import Mapping
from typing import Any, Self, cast

import sqlalchemy as sa
from dagster._core.storage.config import MySqlStorageConfig
from dagster._serdes import ConfigurableClassData
from dagster_mysql import DagsterMySQLStorage
from dagster_mysql.utils import mysql_url_from_config

KEPT_CONNECTIONS = 2


class PooledMySQLStorage(DagsterMySQLStorage):
    """Dagster's storage on MySQL, without a new connection for each statement.

    Dagster's own opens one for each, two for an event of an asset, everywhere but in the webserver: most of what an
    event costs. This one keeps a few in each process, and looks at one that was kept before it is used, so that a
    server that was restarted is noticed as before. More are opened where several threads need them at once.

    Args:
        mysql_url: The database of Dagster's tables.
        inst_data: How Dagster makes it again in another process.
    """

    def __init__(self, mysql_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(mysql_url, inst_data)
        engine = sa.create_engine(
            mysql_url,
            isolation_level="REPEATABLE READ",
            pool_size=KEPT_CONNECTIONS,
            max_overflow=-1,
            pool_pre_ping=True,
        )
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = engine  # as they do themselves in the webserver

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Returns the storage that dagster.yaml describes."""
        return cls(mysql_url_from_config(cast("MySqlStorageConfig", config_value)), inst_data)
