"""The database of the running test, looked at without the package: a test must not believe what it tests."""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets_tests.support.servers import Rows, Server

# The tables that init-db makes beside the items, in its order.
BOOKKEEPING_TABLES = (
    "failed_items",
    "run_summary",
    "hour_locks",
    "hour_requests",
    "registrations",
    "baselines",
    "hour_profiles",
    "incidents",
    "actuals",
    "hour_quality",
    "hour_models",
    "item_models",
    "promotions",
    "challenger_predictions",
    "challenger_hours",
)

Sql = Callable[..., Rows]


class DatabaseOfTest:
    """What the fixture `sql` asks: a database on the server or a SQLite file, as the test's other fixtures say."""

    server: Server | None = None
    name: str = ""
    file: Path | None = None

    def execute(self, statement: str, *parameters: object) -> Rows:
        """Runs one statement over a new connection and returns the rows.

        Parameters are written %s on every database; a % that is none is doubled where there are parameters.
        """
        if self.server is not None:
            return self.server.execute(statement, *parameters, database=self.name)
        if self.file is None:
            pytest.fail("`sql` needs `database_environment` or `server_environment` beside it")
        if parameters:
            statement = statement.replace("%s", "?").replace("%%", "%")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(self.file, timeout=30, isolation_level=None)) as connection:
            return connection.execute(statement, parameters).fetchall()
