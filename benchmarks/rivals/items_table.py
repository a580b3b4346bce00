"""The table of items that every side works on: filled on the server, reset before a side and verified after it."""

import contextlib
import datetime
import json
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.schema.setup import initialize_database
from batch_assets.errors import BatchAssetsError
from batch_assets.settings.database import database_settings
from batch_assets_tests.support.engines import ITEMS
from batch_assets_tests.support.servers import Rows, Server, server_for_tests
from benchmarks.rivals.shared import START, WITHIN_HOUR, Scorer
from benchmarks.servers import server_of_kind

HOUR_ITEMS = 65_322
FILL_ROWS = 100_000
SAMPLE_ROWS = 500
TOLERANCE = 1e-5
# All items are made with it, so that the first side finds the same as the others: a table whose predictions were taken
# away.
PREDICTION = "[0.97430277,0.017483693,0.0082135]"
# Transactions whose old rows the server has yet to purge: with so few of them it is at rest.
SETTLED_TRANSACTIONS = 20
# MySQL may leave more of them until somebody writes again: it is at rest when their number stands still for so long.
STILL_SECONDS = 5
BUFFER_POOL = "--innodb-buffer-pool-size=1G"
SETTINGS = (
    "innodb_buffer_pool_size",
    "innodb_doublewrite",
    "innodb_flush_log_at_trx_commit",
    "innodb_flush_method",
    "innodb_log_file_size",
    "innodb_redo_log_capacity",
    "log_bin",
    "sync_binlog",
)


class SideError(BatchAssetsError):
    """A side has not done what it was measured for."""


@contextlib.contextmanager
def server_for_benchmark(kind: str | None, environment: Mapping[str, str]) -> Iterator[Server]:
    """The server in MYSQL_SERVER, or a private one with a buffer pool of 1 GiB and else durable default settings.

    Args:
        kind: `mariadb` or `mysql`; None for the one that is found.
        environment: Names the server.

    Raises:
        SideError: The server of MYSQL_SERVER is of the other kind.
    """
    if not environment.get("MYSQL_SERVER"):
        with server_of_kind(kind, BUFFER_POOL) as private:
            yield private.server
        return
    with server_for_tests(environment) as server:
        if kind and server.is_mariadb != (kind == "mariadb"):
            raise SideError(f"--server is {kind}, and that of MYSQL_SERVER is {server.version}: name one of them.")
        yield server


def settings_of(server: Server) -> dict[str, str]:
    """Returns the settings of a server on which its speed depends most."""
    names = ", ".join(f"'{name}'" for name in SETTINGS)
    return {str(name): str(value) for name, value in server.execute(f"SHOW VARIABLES WHERE Variable_name IN ({names})")}


@dataclass(frozen=True)
class ItemsTable:
    """An hour of items in a database of its own.

    Args:
        server: The server.
        database: The database.
        items: The items of the hour.
        settle_seconds: How long to wait at the most until the server is at rest.
    """

    server: Server
    database: str
    items: int
    settle_seconds: float

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a program finds it."""
        return self.server.environment(self.database)

    def sql(self, statement: str, *parameters: object) -> Rows:
        """Runs a statement over a connection of its own."""
        return self.server.execute(statement, *parameters, database=self.database)

    def reset(self) -> float:
        """Takes the predictions of the hour away and waits until the server is at rest; returns the seconds of that.

        What every side finds is the same so: otherwise the purge of what one has left would cost the next.
        """
        ((first, last),) = self.sql(f"SELECT MIN(id), MAX(id) FROM items WHERE {WITHIN_HOUR}")
        for start in range(first, last + 1, FILL_ROWS):
            self.sql("UPDATE items SET prediction = NULL WHERE id BETWEEN %s AND %s", start, start + FILL_ROWS - 1)
        for table in ("failed_items", "run_summary", "hour_requests"):
            self.sql(f"DELETE FROM {table}")
        begin = changed = time.monotonic()
        end, left = begin + self.settle_seconds, self._unpurged()
        while left > SETTLED_TRANSACTIONS and time.monotonic() < min(changed + STILL_SECONDS, end):
            time.sleep(0.2)
            before, left = left, self._unpurged()
            changed = time.monotonic() if left != before else changed
        return time.monotonic() - begin

    def verify(self, side: str, scorer: Scorer | None) -> None:
        """Looks whether a side has done its work.

        Args:
            side: Its name.
            scorer: What the predictions must be; None for a side that writes constants.

        Raises:
            SideError: An item has no prediction, or one of a sample has a wrong one.
        """
        ((items, predicted),) = self.sql(f"SELECT COUNT(*), COUNT(prediction) FROM items WHERE {WITHIN_HOUR}")
        if (items, predicted) != (self.items, self.items):
            raise SideError(f"{side} has left {items - predicted:,} of {self.items:,} items without a prediction.")
        if scorer is None:
            return
        ((first, last),) = self.sql(f"SELECT MIN(id), MAX(id) FROM items WHERE {WITHIN_HOUR}")
        chosen = random.Random(side).sample(range(first, last + 1), min(SAMPLE_ROWS, self.items))
        listed = ", ".join(map(str, chosen))
        rows = self.sql(f"SELECT `values`, prediction FROM items WHERE id IN ({listed})")
        wanted = scorer.probabilities([json.loads(values) for values, _ in rows])
        found = np.array([json.loads(prediction) for _, prediction in rows])
        if found.shape != wanted.shape or np.abs(found - wanted).max() > TOLERANCE:
            raise SideError(f"{side} has written predictions that are not those of the model.")

    def fill(self, rows: int) -> None:
        """Makes the tables and their items, which have a prediction: the hour last, others in the hours before.

        Args:
            rows: How many rows the table is to have in all.
        """
        initialize_database(engine_for(database_settings(self.environment)), ITEMS)
        start = datetime.datetime.fromisoformat(START)
        others, hours = rows - self.items, -(-(rows - self.items) // HOUR_ITEMS)
        self._insert(1, others, start - datetime.timedelta(hours=hours), hours)
        self._insert(others + 1, self.items, start, 1)
        self.sql("ANALYZE TABLE items")

    def _insert(self, first: int, count: int, start: datetime.datetime, hours: int) -> None:
        """Inserts varied items, whose times go with their ids from the start of so many hours to their end."""
        digits = " UNION ALL ".join(f"SELECT {digit} AS d" for digit in range(10))
        numbers = " + ".join(f"{10**power} * d{power}.d" for power in range(5))
        tables = " CROSS JOIN ".join(f"({digits}) AS d{power}" for power in range(5))
        parts = ((43, 1, 36), (20, 36, 24), (10, 7, 59), (1, 13, 24))
        lengths = ", ', ', ".join(f"ROUND(({low} + n DIV {step} % {span}) / 10, 1)" for low, step, span in parts)
        for begin in range(0, count, FILL_ROWS):
            self.sql(
                "INSERT INTO items (id, `values`, prediction, created_datetime, updated_datetime)"
                f" SELECT {first} + n, CONCAT('[', {lengths}, ']'), '{PREDICTION}',"
                f" TIMESTAMP '{start}' + INTERVAL (n * {hours * 3600} DIV {count}) SECOND, CURRENT_TIMESTAMP"
                f" FROM (SELECT {begin} + {numbers} AS n FROM {tables}) AS numbers WHERE n < {count} ORDER BY n"
            )

    def _unpurged(self) -> int:
        ((count,),) = self.sql(
            "SELECT `COUNT` FROM information_schema.INNODB_METRICS WHERE NAME = 'trx_rseg_history_len'"
        )
        return int(count)


@contextlib.contextmanager
def items_table(server: Server, items: int, settle_seconds: float, *, rows: int | None = None) -> Iterator[ItemsTable]:
    """A filled table, for as long as the context lasts.

    Args:
        server: The server.
        items: The items of the hour.
        settle_seconds: How long to wait at the most until the server is at rest.
        rows: The rows of the table in all; those of the hour without it.
    """
    with server.database() as database:
        table = ItemsTable(server, database, items, settle_seconds)
        table.fill(rows or items)
        yield table
