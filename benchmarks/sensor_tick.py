"""What a tick of the sensor `retry_hours` asks of the database, on tables of several sizes with as much pending.

    python -m benchmarks.sensor_tick [--items 200000 2000000] [--pending 1000] [--failed 1000] [--ticks 20]

Makes a database of its own on the server of MYSQL_SERVER, or an SQLite file, and removes it. The items lie in 500
hours, what is pending in the last ten. Prints the median and the worst tick in milliseconds, and how the database goes
about it.
"""

import argparse
import dataclasses
import datetime
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.hour_requests import read_requests
from batch_assets.database.records.remaining import _failed, _unpredicted, failed_rows, remaining_by_hour
from batch_assets.database.records.summaries import hours_with_summary
from batch_assets.database.schema.setup import initialize_database
from batch_assets.hours import Hour
from batch_assets.settings.database import MySQLSettings, database_settings
from batch_assets_tests.support.engines import ITEMS, TABLES

FIRST = Hour(datetime.datetime(2026, 11, 1))  # noqa: DTZ001 - UTC without a zone, as in the database
HOURS, PENDING_HOURS = 500, 10
END = FIRST.start + datetime.timedelta(hours=HOURS)
DATABASE = f"batch_assets_sensor_tick_{os.getpid()}"
ATTEMPTS = 3


def main() -> None:
    """Measures and prints."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--items", type=int, nargs="+", default=[200_000, 2_000_000])
    arguments.add_argument("--pending", type=int, default=1000)
    arguments.add_argument("--failed", type=int, default=1000, help="failed items, half of them given up")
    arguments.add_argument("--ticks", type=int, default=20)
    options = arguments.parse_args()
    print(f"{'items':>12} {'pending':>9} {'failed':>9} {'median':>9} {'worst':>9}   ms a tick")
    for count in options.items:
        with database() as engine:
            initialize_database(engine, ITEMS)
            fill(engine, count, options.pending, options.failed)
            tick(engine)
            seconds = [tick(engine) for _ in range(options.ticks)]
            times = f"{statistics.median(seconds) * 1000:9.1f} {max(seconds) * 1000:9.1f}"
            print(f"{count:12,} {options.pending:9,} {options.failed:9,} {times}", flush=True)
            plan = query_plans(engine)
    print(plan)


@contextmanager
def database() -> Iterator[sa.Engine]:
    """Makes an empty database and removes it."""
    settings = database_settings(os.environ)
    if isinstance(settings, MySQLSettings):
        owner = engine_for(settings)
        with owner.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {DATABASE}")
        try:
            yield engine_for(dataclasses.replace(settings, database=DATABASE))
        finally:
            with owner.connect() as connection:
                connection.exec_driver_sql(f"DROP DATABASE {DATABASE}")
        return
    with tempfile.TemporaryDirectory() as home:
        yield engine_for(database_settings({"BATCH_ASSETS_HOME": home}))


def fill(engine: sa.Engine, count: int, pending: int, failed: int) -> None:
    """Fills the tables: items with predictions over all hours, without them in the last."""
    seconds = HOURS * 3600
    with engine.begin() as connection:
        sqlite = connection.dialect.name == "sqlite"
        modulo = "%" if sqlite else "%%"
        digits = " UNION ALL ".join(f"SELECT {digit} AS d" for digit in range(10))
        numbers = "ones.d" + "".join(f" + {10**power} * d{power}.d" for power in range(1, 7))
        tables = f"({digits}) AS ones" + "".join(f" CROSS JOIN ({digits}) AS d{power}" for power in range(1, 7))
        created = "DATETIME('2026-11-01', '+' || (number * {0} / {1}) || ' seconds')"
        if not sqlite:
            created = "TIMESTAMP '2026-11-01 00:00:00' + INTERVAL (number * {0} DIV {1}) SECOND"
        connection.exec_driver_sql(
            "INSERT INTO items (`values`, prediction, created_datetime, updated_datetime) SELECT '[5.1,3.5,1.4,0.2]', "
            f"'[0.9,0.1,0.0]', {created.format(seconds, count)}, CURRENT_TIMESTAMP FROM "
            f"(SELECT {numbers} AS number FROM {tables}) AS numbers WHERE number < {count}"
        )
        late = f"created_datetime >= '{END - datetime.timedelta(hours=PENDING_HOURS)}'"
        step = max(1, count * PENDING_HOURS // HOURS // (pending + failed))
        these = f"{late} AND id {modulo} {step} = 0"
        chosen = connection.exec_driver_sql(f"SELECT id FROM items WHERE {these} LIMIT {pending + failed}")
        ids = [row.id for row in chosen]
        listed = ", ".join(map(str, ids))
        connection.exec_driver_sql(f"UPDATE items SET prediction = NULL WHERE id IN ({listed})")
        hour = "strftime('%Y-%m-%d %H:00:00', created_datetime)"
        if not sqlite:
            hour = "DATE_FORMAT(created_datetime, '%%Y-%%m-%%d %%H:00:00')"
        listed = ", ".join(map(str, ids[:failed] or [0]))
        connection.exec_driver_sql(
            "INSERT INTO failed_items (item_id, hour, code, message, attempts, first_failed_at, last_failed_at, "
            f"model_version, run_id, values_checksum) SELECT id, {hour}, 'code', 'message', "
            f"id {modulo} 2 * {ATTEMPTS}, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, 'version', 'run', "
            "CRC32('[5.1,3.5,1.4,0.2]') FROM items "
            f"WHERE id IN ({listed})"
        )
    if engine.dialect.name != "sqlite":
        with engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE TABLE items")


def tick(engine: sa.Engine) -> float:
    """Returns the seconds of what a tick looks up."""
    start = time.perf_counter()
    read_requests(engine, TABLES)
    left = remaining_by_hour(engine, TABLES, FIRST, END, ATTEMPTS)
    hours_with_summary(engine, TABLES, left)
    seconds = time.perf_counter() - start
    assert len(left) <= PENDING_HOURS + 1, f"{len(left)} hours have something left"
    assert failed_rows(engine, TABLES, 1, ATTEMPTS) is not None
    return seconds


def query_plans(engine: sa.Engine) -> str:
    """Returns how the database goes about the two questions that touch the items."""
    lines = []
    with engine.connect() as connection:
        for name, statement in (
            ("without a prediction", _unpredicted(connection, ITEMS, FIRST.start, END)),
            ("failed", _failed(connection, TABLES, FIRST.start, END, ATTEMPTS)),
        ):
            sql = statement.compile(connection, compile_kwargs={"literal_binds": True})
            word = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
            rows = connection.exec_driver_sql(f"{word} {str(sql).replace('%%', '%').replace('%', '%%')}").mappings()
            lines += [f"{name}: {dict(row)}" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
