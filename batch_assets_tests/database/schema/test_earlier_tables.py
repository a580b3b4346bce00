"""Tables of the version before there were pipelines are brought up to date: no row is lost, while a run goes on."""

import contextlib
import datetime
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pymysql
import pytest
import sqlalchemy as sa

from batch_assets.database.connection.statements import checksum
from batch_assets.database.records.failed_items import FailedItems
from batch_assets.database.records.hour_lock import HourLock
from batch_assets.database.schema import setup as schema
from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.slices.batch import Batch, FailedRow
from batch_assets.database.slices.batches import Batches
from batch_assets.database.slices.replacing import replace_slice
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.errors import DatabaseError, DatabaseUnavailableError, HourBusyError
from batch_assets.hours import Hour
from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.earlier_tables import (
    COLUMNS,
    FAILED,
    FIRST,
    HOURS,
    fill_a_year,
    fill_hours,
    make_earlier_tables,
    rows_of_tables,
)
from batch_assets_tests.support.engines import ITEMS, TABLES, engine_from_environment
from batch_assets_tests.support.interruptions import CHANGES, DEFINITIONS, interrupted_after
from batch_assets_tests.support.pipeline import START, Counts, assert_hour_adds_up, failed_of, insert_items
from batch_assets_tests.support.servers import Server

HOUR = Hour(datetime.datetime.fromisoformat(START))
VERSION = "SELECT version_num FROM batch_assets_alembic_version"
COUNTS = {table: FAILED if table == "failed_items" else HOURS for table in COLUMNS}
# A process that ends without a word after the second statement that makes or changes a table.
KILLED = """
import os, signal
from batch_assets.database.schema.setup import initialize_database
from batch_assets_tests.support.engines import ITEMS, engine_from_environment
from batch_assets_tests.support.interruptions import listening
engine, seen = engine_from_environment(), []
def count(statement):
    seen.extend([statement] if statement.lstrip().startswith(("CREATE", "ALTER", "DROP")) else [])
    if len(seen) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
with listening(engine, "after_cursor_execute", count):
    initialize_database(engine, ITEMS)
"""
# What a run of the version before says to the tables, `%s` being the hour.
SUMMARY = (
    "INSERT INTO run_summary (hour, items, predicted, failed, pending, label_counts, run_id, finished_at) "
    "VALUES (%s, 2, 1, 1, 0, '{}', 'old', '2026-11-02 06:19:03')"
)
BUSY_HOUR = (
    "REPLACE INTO hour_locks (hour, run_id, taken_at) VALUES (%s, 'old', '2026-11-02 06:19:00')",
    "DELETE FROM run_summary WHERE hour >= %s AND hour < '2026-11-02 06:00:00'",
    SUMMARY,
)
NEW_REQUEST = (
    "INSERT IGNORE INTO hour_requests (hour, requests, reason, left_over, requested_at) "
    "VALUES (%s, 1, 'late items', '1 1 0 0', '2026-11-02 06:19:00')"
)
SECOND_REQUEST = (
    "UPDATE hour_requests SET requests = 2 WHERE hour = %s AND requests = 1 AND requested_at = '2026-11-02 06:19:00' "
    "AND given_up_at IS NULL"
)
REGISTRATION = (
    "INSERT IGNORE INTO registrations (idempotency_key, fingerprint, ids, registered_at) "
    "VALUES ('key', 'f', '[1]', '2026-11-02 05:30:00')"
)
FAILURE = (
    "INSERT INTO failed_items (item_id, hour, code, message, values_checksum, attempts, first_failed_at, "
    "last_failed_at, model_version, run_id) SELECT items.id, '{hour}', 'wrong_length', 'too short', batch.old_values, "
    "1, '2026-11-02 06:19:00', '2026-11-02 06:19:00', 'v', 'old' FROM (SELECT {key} AS item_id, {checksum} AS "
    "old_values) AS batch {join} items ON items.id = batch.item_id WHERE items.prediction IS NULL {again} attempts = "
    "failed_items.attempts + 1, last_failed_at = '2026-11-02 07:19:00'"
)


@pytest.fixture
def engine(database_environment: dict[str, str]) -> sa.Engine:
    engine = engine_from_environment()
    make_earlier_tables(engine)
    return engine


@pytest.fixture
def on_server(server_environment: dict[str, str]) -> sa.Engine:
    engine = engine_from_environment()
    make_earlier_tables(engine)
    return engine


@pytest.fixture
def connection(on_server: sa.Engine, server: Server) -> Iterator[pymysql.connections.Connection]:
    """That of a run of the version before."""
    with pymysql.connect(
        host=server.host, port=server.port, user=server.user, password=server.password,
        database=str(on_server.url.database),
    ) as connection:  # fmt: skip
        yield connection


def failure(key: int, *, sqlite: bool = False) -> str:
    """The statement by which the version before records that an item has failed."""
    again = "ON CONFLICT (item_id) DO UPDATE SET" if sqlite else "LOCK IN SHARE MODE ON DUPLICATE KEY UPDATE"
    join = "JOIN" if sqlite else "STRAIGHT_JOIN"
    return FAILURE.format(hour=START, key=key, checksum=checksum("[1]"), join=join, again=again)


def pipelines(sql: Sql) -> dict[str, list[tuple[object, ...]]]:
    """How many rows of which pipeline are in each table."""
    return {table: sql(f"SELECT pipeline, COUNT(*) FROM {table} GROUP BY pipeline") for table in COLUMNS}


def all_of_the_environment(counts: dict[str, int]) -> dict[str, list[tuple[str, int]]]:
    return {table: [("items", count)] for table, count in counts.items()}


# A year of hours


def test_a_year_of_rows_is_kept_and_belongs_to_the_pipeline_of_the_environment(engine: sa.Engine, sql: Sql) -> None:
    fill_a_year(sql)
    before = rows_of_tables(sql)
    assert {table: len(rows) for table, rows in before.items()} == COUNTS
    initialize_database(engine, ITEMS)
    assert rows_of_tables(sql) == before
    assert pipelines(sql) == all_of_the_environment(COUNTS)
    inspector = sa.inspect(engine)
    assert [index["column_names"] for index in inspector.get_indexes("failed_items")] == [["hour"]]
    assert [index["column_names"] for index in inspector.get_indexes("registrations")] == [["registered_at"]]
    # The second time nothing is written, let alone anew.
    assert interrupted_after(engine, 0, lambda: initialize_database(engine, ITEMS)) == 0
    assert rows_of_tables(sql) == before
    assert sql(VERSION) == [("0011",)]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_migration_that_is_interrupted_after_any_step_loses_nothing_and_is_finished_by_the_next_one(
    engine: sa.Engine, sql: Sql
) -> None:
    fill_hours(sql, 200)
    before, on_sqlite = rows_of_tables(sql), engine.dialect.name == "sqlite"
    # SQLite takes back all that was done. A server keeps what a definition has committed, and nothing else, so that the
    # first definition is another one each time.
    counted = CHANGES if on_sqlite else DEFINITIONS
    for step in range(100):
        limit = step + 1 if on_sqlite else 1
        if interrupted_after(engine, limit, lambda: initialize_database(engine, ITEMS), counted) < limit:
            break
        assert rows_of_tables(sql) == before
    assert len(COLUMNS) < step < 99
    assert rows_of_tables(sql) == before
    assert pipelines(sql) == all_of_the_environment(dict.fromkeys(COLUMNS, 200))
    assert sql(VERSION) == [("0011",)]


def test_a_migration_that_is_killed_loses_nothing_and_is_finished_by_the_next_one(engine: sa.Engine, sql: Sql) -> None:
    fill_a_year(sql)
    before = rows_of_tables(sql)
    killed = subprocess.run([sys.executable, "-c", KILLED], env=os.environ, cwd=root_folder(), check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert sql(VERSION) == [("0003",)]
    assert rows_of_tables(sql) == before
    initialize_database(engine, ITEMS)
    assert rows_of_tables(sql) == before
    assert pipelines(sql) == all_of_the_environment(COUNTS)
    assert sql(VERSION) == [("0011",)]


def test_a_run_of_the_version_before_can_still_store_its_summary(engine: sa.Engine, sql: Sql) -> None:
    initialize_database(engine, ITEMS)
    # As its runs store a summary: with the columns that it knows.
    names = ("pipeline", *COLUMNS["run_summary"].split(", "))
    hour = datetime.datetime.fromisoformat(START)
    row = ("items", hour, 2, 2, 0, 0, "{}", "v", "partial", "old", hour, hour, 2, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert replace_slice(engine, TableSlice("run_summary"), Batches([Batch(names, [row])])) == 1
    assert sql("SELECT run_id, ignored_keys FROM run_summary") == [("old", 0)]


def test_what_others_have_made_around_the_tables_stays(engine: sa.Engine, sql: Sql) -> None:
    fill_a_year(sql)
    sql("CREATE VIEW nights AS SELECT hour, predicted FROM run_summary")
    sql("CREATE INDEX by_code ON failed_items (code, item_id)")
    sql("ALTER TABLE run_summary ADD COLUMN note VARCHAR(20) DEFAULT 'käse'")
    sql(
        "CREATE TRIGGER first_note AFTER INSERT ON hour_locks FOR EACH ROW "
        + ("BEGIN {0}; END" if engine.dialect.name == "sqlite" else "{0}").format(
            "UPDATE run_summary SET note = 'locked' WHERE hour = NEW.hour"
        )
    )
    nights = sql("SELECT * FROM nights ORDER BY hour")
    initialize_database(engine, ITEMS)
    assert sql("SELECT * FROM nights ORDER BY hour") == nights
    assert {index["name"] for index in sa.inspect(engine).get_indexes("failed_items")} == {
        "ix_failed_items_hour",
        "by_code",
    }
    sql(SUMMARY, START)
    sql("INSERT INTO hour_locks (pipeline, hour, run_id, taken_at) VALUES ('other', %s, 'run', %s)", FIRST, FIRST)
    assert sql("SELECT note, COUNT(*) FROM run_summary GROUP BY note ORDER BY note") == [
        ("käse", HOURS),
        ("locked", 1),
    ]


# A run of the version before, which goes on


def test_what_a_run_of_the_version_before_writes_is_of_the_pipeline_of_the_environment(
    engine: sa.Engine, sql: Sql
) -> None:
    ignore = "OR IGNORE" if engine.dialect.name == "sqlite" else "IGNORE"
    initialize_database(engine, ITEMS)
    for _ in range(2):
        for statement in (*BUSY_HOUR, NEW_REQUEST.replace("IGNORE", ignore), SECOND_REQUEST):
            sql(statement, START)
        sql(REGISTRATION.replace("IGNORE", ignore))
    there = ("run_summary", "hour_locks", "hour_requests", "registrations")
    assert pipelines(sql) == {"failed_items": []} | all_of_the_environment(dict.fromkeys(there, 1))
    assert sql("SELECT requests FROM hour_requests WHERE hour = %s", START) == [(2,)]
    # A run of this version knows who holds the hour.
    lock = HourLock(engine, TABLES, HOUR, "new", wait=False, on_progress=print)
    with engine.connect() as reading, pytest.raises(HourBusyError, match="to run old: nothing more was written"):
        lock.check(reading)
    sql("DELETE FROM hour_locks WHERE hour = %s AND run_id = 'old'", START)
    sql("DELETE FROM hour_requests WHERE hour = %s AND requests = 2", START)
    assert pipelines(sql) == {table: [] for table in COLUMNS} | all_of_the_environment(
        {"run_summary": 1, "registrations": 1}
    )


def test_what_a_run_of_the_version_before_records_of_failed_items_counts_on(on_server: sa.Engine, sql: Sql) -> None:
    first, second = insert_items(sql, ["[1]", "[1]"])
    sql(failure(first))
    initialize_database(on_server, ITEMS)
    for key in (first, second):
        sql(failure(key))
    assert failed_of(sql) == {first: ("wrong_length", "too short", 2), second: ("wrong_length", "too short", 1)}
    record(on_server, first)
    assert failed_of(sql)[first] == ("code", "message", 3)
    sql("DELETE FROM failed_items WHERE item_id IN (%s)", second)
    assert pipelines(sql)["failed_items"] == [("items", 1)]


def test_on_sqlite_a_run_of_the_version_before_is_refused_what_it_cannot_record_and_writes_no_half(
    database_environment: dict[str, str], sql: Sql
) -> None:
    if "MYSQL_SERVER" in database_environment:
        return
    engine = engine_from_environment()
    make_earlier_tables(engine)
    good, bad = insert_items(sql, ["[5.1, 3.5, 1.4, 0.2]", "[1]"])
    sql(failure(bad, sqlite=True))
    initialize_database(engine, ITEMS)
    file = str(engine.url.database)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE items SET prediction = '[1, 0, 0]' WHERE id = ?", [good])
        with pytest.raises(sqlite3.OperationalError, match="ON CONFLICT clause does not match any PRIMARY KEY"):
            connection.execute(failure(bad, sqlite=True))
    assert assert_hour_adds_up(sql) == Counts(2, 0, 1, 1)
    record(engine, bad)
    assert failed_of(sql) == {bad: ("code", "message", 2)}
    assert pipelines(sql)["failed_items"] == [("items", 1)]


def test_a_run_of_the_version_before_goes_on_writing_while_the_tables_change(
    on_server: sa.Engine, connection: pymysql.connections.Connection, sql: Sql
) -> None:
    fill_a_year(sql)
    before = rows_of_tables(sql)
    insert_items(sql, ["[1]"] * 2_000)
    # Far from those of the year.
    sql("UPDATE items SET id = id + 1000000 ORDER BY id DESC")
    keys = [key for (key,) in sql("SELECT id FROM items ORDER BY id")]
    begun, done, written = threading.Event(), threading.Event(), []

    def write() -> None:
        with connection.cursor() as cursor:
            for key in keys:
                if done.is_set():
                    break
                cursor.execute(failure(key))
                for statement in BUSY_HOUR:
                    cursor.execute(statement, [START])
                connection.commit()
                written.append(key)
                begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert begun.wait(60)
    initialize_database(on_server, ITEMS)
    after = len(written)
    while writer.is_alive() and len(written) < after + 3:
        time.sleep(0.01)
    done.set()
    writer.join()
    assert len(written) >= after + 3
    rows = rows_of_tables(sql)
    new = {table: set(rows[table]) - set(known) for table, known in before.items()}
    assert {row[0] for row in new["failed_items"]} == set(written)
    assert (len(new["run_summary"]), len(new["hour_locks"])) == (1, 1)
    assert {table: len(rows[table]) - len(new[table]) for table in COLUMNS} == COUNTS
    assert set(pipelines(sql)) == set(COLUMNS)
    assert {name for counts in pipelines(sql).values() for name, _ in counts} == {"items"}


def test_a_run_that_is_in_the_middle_of_its_transaction_stops_the_migration_and_not_the_other_runs(
    on_server: sa.Engine, connection: pymysql.connections.Connection, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "TABLE_LOCK_SECONDS", 1)
    fill_a_year(sql)
    before = rows_of_tables(sql)
    with connection.cursor() as cursor:
        cursor.execute("SELECT run_id FROM hour_locks WHERE hour = %s LOCK IN SHARE MODE", [START])
        with pytest.raises(DatabaseUnavailableError, match="let the runs end, then run `batch-assets init-db` again"):
            initialize_database(on_server, ITEMS)
        cursor.execute(SUMMARY, [START])
        connection.commit()
    initialize_database(on_server, ITEMS)
    rows = rows_of_tables(sql)
    (summary,) = set(rows["run_summary"]) - set(before["run_summary"])
    assert "old" in summary
    assert pipelines(sql) == all_of_the_environment(COUNTS | {"run_summary": HOURS + 1})


# This version on tables that nobody has brought up to date


def test_a_run_on_tables_of_the_version_before_is_told_to_run_init_db(engine: sa.Engine, sql: Sql) -> None:
    (bad,) = insert_items(sql, ["[1]"])
    with pytest.raises(DatabaseError, match=r"A column is missing in .* run `batch-assets init-db`, which adds it"):
        HourLock(engine, TABLES, HOUR, "new", wait=False, on_progress=print).acquire().__enter__()
    with pytest.raises(DatabaseError, match=r"A column is missing in .* run `batch-assets init-db`, which adds it"):
        record(engine, bad)
    assert sql("SELECT * FROM hour_locks") == sql("SELECT * FROM failed_items") == []


def record(engine: sa.Engine, key: int) -> None:
    """Records as a run of this version does that an item has failed."""
    failed_items = FailedItems(engine, TABLES, HOUR, "v", "new")
    with engine.begin() as connection:
        failed_items.record(connection, Batch(("id",), [], [FailedRow(key, "[1]", "code", "message")]))
