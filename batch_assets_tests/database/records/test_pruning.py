"""Old hours go in small steps: whatever ends a step or comes in between, what is left of an hour adds up."""

import contextlib
import datetime
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.connection.throttle import Throttle
from batch_assets.database.records import pruning
from batch_assets.database.records.hour_lock import HourLock
from batch_assets.database.records.pruning import (
    IN_USE,
    LOCKED,
    UNSCORED,
    PrunedHour,
    Pruning,
    existing_hours,
    old_hours,
)
from batch_assets.hours import Hour
from batch_assets.settings.database import database_settings
from batch_assets.settings.folders import root_folder
from batch_assets.settings.throttle import ThrottleSettings
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import TABLES, engine_from_environment
from batch_assets_tests.support.pipeline import (
    END,
    GOOD,
    HALF_PAST,
    LAST,
    START,
    Counts,
    assert_hour_adds_up,
    correct,
    insert_items,
    rows_of,
)
from batch_assets_tests.support.rows import failed, predicted, record_failure, summed_up
from batch_assets_tests.support.servers import Server

pytestmark = pytest.mark.usefixtures("tables")

HOUR = Hour(datetime.datetime.fromisoformat(START))
NEXT = Hour(HOUR.end)
BEFORE = "2026-11-02 04:59:59"
ALL = ("items", "failed_items", "run_summary", "hour_requests", "hour_locks")
TEXT = GOOD[0]
KILLED = f"""
import datetime, os
from batch_assets.database.records import pruning
from batch_assets.database.connection.engine import engine_for
from batch_assets_tests.support.engines import TABLES, engine_from_environment
from batch_assets.hours import Hour
from batch_assets.database.connection.throttle import Throttle
from batch_assets.settings.throttle import ThrottleSettings
pruning.BATCH_ROWS = 10
engine = engine_from_environment()
throttle = Throttle(engine, ThrottleSettings(max_rows_per_second=50), print)
hour = Hour(datetime.datetime.fromisoformat("{START}"))
pruning.Pruning(engine, [TABLES], throttle, print, unscored_too=False).remove(hour)
"""


@pytest.fixture
def engine(tables: dict[str, str]) -> sa.Engine:
    return engine_from_environment()


@pytest.fixture
def server_only(tables: dict[str, str]) -> None:
    if "MYSQL_SERVER" not in tables:
        pytest.skip("SQLite has one writer at a time")


class Meddling(Throttle):
    """Lets something happen before each transaction."""

    def __init__(self, engine: sa.Engine, meddle: Callable[[int], object]) -> None:
        super().__init__(engine, ThrottleSettings(), print)
        self._meddle = meddle

    def before_write(self, rows: int) -> None:
        self._meddle(rows)


def prune(
    engine: sa.Engine,
    hour: Hour = HOUR,
    *,
    unscored_too: bool = False,
    meddle: Callable[[int], object] = lambda _: None,
) -> PrunedHour:
    return Pruning(engine, [TABLES], Meddling(engine, meddle), print, unscored_too=unscored_too).remove(hour)


def hours(sql: Sql, table: str) -> list[str]:
    return [str(row[0]) for row in sql(f"SELECT hour FROM {table} ORDER BY hour")]


# What goes, and what stays


def test_an_hour_goes_with_all_that_was_recorded_of_it_and_the_others_stay(engine: sa.Engine, sql: Sql) -> None:
    predicted(sql, 2, START)
    predicted(sql, 2, LAST)
    failed(sql)
    others = [*predicted(sql, 1, BEFORE), *predicted(sql, 2, END), failed(sql, END, END)]
    for start in (START, END):
        summed_up(sql, 5, start)
    assert prune(engine) == PrunedHour(HOUR, 5)
    assert [row[0] for row in sql("SELECT id FROM items ORDER BY id")] == sorted(others)
    assert sql("SELECT item_id, hour FROM failed_items") == [(others[-1], sql("SELECT hour FROM run_summary")[0][0])]
    assert hours(sql, "run_summary") == hours(sql, "hour_requests") == [END]
    assert sql("SELECT COUNT(*) FROM hour_locks") == [(0,)]
    assert prune(engine) == PrunedHour(HOUR, 0)


def test_old_hours_are_those_of_items_and_of_rows_that_are_left_oldest_first(engine: sa.Engine, sql: Sql) -> None:
    assert old_hours(engine, TABLES, NEXT.end) == []
    for created in (LAST, START, "2026-11-01 23:59:59", END, "2026-11-02 07:00:00"):
        predicted(sql, 1, created)
    summed_up(sql, 0, "2026-10-01 00:00:00")
    sql("INSERT INTO hour_locks (hour, run_id, taken_at) VALUES ('2026-10-03 00:00:00', 'killed', %s)", START)
    record_failure(sql, 999, "2026-10-02 00:00:00")
    found = ["2026-10-01-00:00", "2026-10-02-00:00", "2026-10-03-00:00", "2026-11-01-23:00", HOUR.key]
    assert [hour.key for hour in old_hours(engine, TABLES, HOUR.end)] == found
    assert [hour.key for hour in old_hours(engine, TABLES, HOUR.start)] == found[:-1]
    for hour in old_hours(engine, TABLES, NEXT.end):
        prune(engine, hour)
    assert old_hours(engine, TABLES, NEXT.end) == []
    assert sql("SELECT COUNT(*) FROM items") == [(1,)]


def test_what_a_challenger_has_answered_goes_with_its_hour(engine: sa.Engine, sql: Sql) -> None:
    predicted(sql)
    answer = "INSERT INTO challenger_predictions (pipeline, hour, item_id, model_version) VALUES (%s, %s, 1, 'v')"
    compared = (
        "INSERT INTO challenger_hours (pipeline, hour, model_version, challenger_version, challenger, compared_at, "
        "sampled, failed, compared, label_counts, labels, challenger_labels, measured_at, known) "
        "VALUES (%s, %s, 'a', 'b', 'c', '2026-11-02 06:30:00', 1, 0, 1, '{}', '[]', '[]', '2026-11-02 06:30:00', 0)"
    )
    for pipeline, start in (("items", START), ("items", END), ("other", START)):
        sql(answer, pipeline, start)
        sql(compared, pipeline, start)
    assert prune(engine) == PrunedHour(HOUR, 3)
    left = [("items", NEXT.start), ("other", HOUR.start)]
    for table in ("challenger_predictions", "challenger_hours"):
        found = sql(f"SELECT pipeline, hour FROM {table} ORDER BY pipeline")
        assert [(name, str(start)) for name, start in found] == [(name, str(start)) for name, start in left]
    # An hour of which nothing else is left.
    assert old_hours(engine, TABLES, NEXT.end) == [NEXT]


def test_what_came_true_of_items_and_which_model_scored_them_goes_with_them(engine: sa.Engine, sql: Sql) -> None:
    gone, stays = predicted(sql, 1, START)[0], predicted(sql, 1, END)[0]
    for key, start in ((gone, START), (stays, END)):
        sql("INSERT INTO actuals (pipeline, item_id, label) VALUES ('items', %s, 'setosa')", key)
        sql("INSERT INTO item_models VALUES ('items', %s, %s, 'v')", key, start)
        sql("INSERT INTO hour_models VALUES ('items', %s, 'v')", start)
    assert prune(engine) == PrunedHour(HOUR, 1)
    assert sql("SELECT item_id FROM actuals") == sql("SELECT item_id FROM item_models") == [(stays,)]
    assert hours(sql, "hour_models") == [END]


def test_a_failed_item_that_is_now_of_another_hour_keeps_its_reason(engine: sa.Engine, sql: Sql) -> None:
    key = failed(sql, END, START)
    predicted(sql, 1)
    assert prune(engine) == PrunedHour(HOUR, 1)
    assert sql("SELECT item_id FROM failed_items") == [(key,)]
    assert old_hours(engine, TABLES, HOUR.end) == []


def test_idempotency_keys_are_forgotten_with_the_hours_in_which_they_were_used(
    engine: sa.Engine, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BATCH_ROWS", 2)
    for number, moment in enumerate([START] * 5 + [END]):
        sql("INSERT INTO registrations VALUES ('items', %s, 'f', '[1]', %s)", str(number), moment)
    throttle = Throttle(engine, ThrottleSettings(), print)
    assert pruning.remove_registrations(engine, TABLES, HOUR.end, throttle) == 5
    assert sql("SELECT idempotency_key FROM registrations") == [("5",)]


def test_an_hour_is_there_while_it_has_items_or_a_summary(engine: sa.Engine, sql: Sql) -> None:
    third = Hour(NEXT.end)
    predicted(sql, 1)
    summed_up(sql, 0, END)
    assert existing_hours(engine, TABLES, [HOUR, NEXT, third]) == {HOUR, NEXT}
    assert existing_hours(engine, TABLES, []) == set()


# What nobody has scored


@pytest.mark.parametrize("state", ["pending", "corrected"])
def test_an_hour_with_items_that_nobody_has_scored_stays_as_it_is_unless_they_may_go_too(
    engine: sa.Engine, sql: Sql, state: str
) -> None:
    predicted(sql)
    summed_up(sql, 3)
    if state == "pending":
        insert_items(sql, GOOD[:1])
    else:
        correct(sql, failed(sql))
    before = rows_of(sql, *ALL)
    assert prune(engine) == PrunedHour(HOUR, 0, UNSCORED, 1)
    assert Pruning(engine, [TABLES], Throttle(engine, ThrottleSettings(), print), print, unscored_too=False).look(
        HOUR
    ) == (PrunedHour(HOUR, 0, UNSCORED, 1))
    assert rows_of(sql, *ALL) == before
    assert prune(engine, unscored_too=True) == PrunedHour(HOUR, 4)
    assert set(map(len, rows_of(sql, *ALL).values())) == {0}


def test_to_look_counts_and_changes_nothing(engine: sa.Engine, sql: Sql) -> None:
    predicted(sql)
    failed(sql)
    summed_up(sql, 4)
    before = rows_of(sql, *ALL)
    looking = Pruning(engine, [TABLES], Throttle(engine, ThrottleSettings(), print), print, unscored_too=False)
    assert looking.look(HOUR) == PrunedHour(HOUR, 4)
    assert rows_of(sql, *ALL) == before


# Step by step


@pytest.mark.parametrize("moments", [[HALF_PAST], [START, LAST, "2026-11-02 05:10:00", HALF_PAST]])
def test_what_is_left_adds_up_after_each_batch_and_the_summary_goes_last(
    engine: sa.Engine, sql: Sql, monkeypatch: pytest.MonkeyPatch, moments: list[str]
) -> None:
    monkeypatch.setattr(pruning, "BATCH_ROWS", 7)
    for number in range(24):
        moment = moments[number % len(moments)]
        predicted(sql, 1, moment)
        failed(sql, moment)
        predicted(sql, 1, END)
    summed_up(sql, 48)
    seen: list[tuple[int, Counts, int]] = []
    done = prune(
        engine,
        meddle=lambda rows: seen.append((rows, assert_hour_adds_up(sql), len(hours(sql, "run_summary")))),
    )
    assert done == PrunedHour(HOUR, 48)
    assert [rows for rows, _, _ in seen] == [7] * 6 + [6, 1]
    assert [counts.items for _, counts, _ in seen] == [48, 41, 34, 27, 20, 13, 6, 0]
    assert {counts.pending for _, counts, _ in seen} == {0}
    assert {summaries for _, _, summaries in seen} == {1}
    assert sql("SELECT COUNT(*) FROM items") == [(24,)]
    assert hours(sql, "run_summary") == []


def test_a_prune_that_is_killed_leaves_an_hour_that_adds_up_and_the_next_one_finishes_it(
    engine: sa.Engine, sql: Sql
) -> None:
    predicted(sql, 60)
    for _ in range(20):
        failed(sql)
    summed_up(sql, 80)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], env={**os.environ, "PYTHONPATH": str(root_folder())}
    ) as process:
        while sql("SELECT COUNT(*) FROM items")[0][0] > 65:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    counts = assert_hour_adds_up(sql)
    assert 0 < counts.items < 80
    assert counts.pending == 0
    assert hours(sql, "run_summary") == hours(sql, "hour_requests") == [START]
    assert old_hours(engine, TABLES, HOUR.end) == [HOUR]
    deadline = time.monotonic() + 30
    while (done := prune(engine)).left == IN_USE:  # until the server has seen that its connection is gone
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert done == PrunedHour(HOUR, counts.items)
    assert set(map(len, rows_of(sql, *ALL).values())) == {0}


def test_two_prunes_at_once_remove_each_item_once(engine: sa.Engine, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BATCH_ROWS", 10)
    chosen = [Hour(HOUR.start + datetime.timedelta(hours=number)) for number in range(4)]
    for hour in chosen:
        predicted(sql, 50, str(hour.start))
        summed_up(sql, 50, str(hour.start))
    results: list[PrunedHour] = []

    def all_of_them() -> None:
        for hour in chosen:
            results.append(prune(engine, hour))  # noqa: PERF401 - as they come

    threads = [threading.Thread(target=all_of_them) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done.removed for done in results) == 200
    assert {done.left for done in results} <= {None, IN_USE}
    assert set(map(len, rows_of(sql, *ALL).values())) == {0}


# Beside others


def test_an_hour_that_a_run_holds_is_not_touched(engine: sa.Engine, sql: Sql) -> None:
    predicted(sql)
    summed_up(sql, 3)
    with HourLock(engine, TABLES, HOUR, "run", wait=False, on_progress=print).acquire():
        before = rows_of(sql, *ALL)
        assert prune(engine) == PrunedHour(HOUR, 0, IN_USE)
        assert rows_of(sql, *ALL) == before
    assert prune(engine) == PrunedHour(HOUR, 3)


def test_a_run_that_finds_the_hour_held_is_told_by_whom(engine: sa.Engine, sql: Sql) -> None:
    predicted(sql)
    said: list[str] = []

    def second(_rows: int) -> None:
        with contextlib.suppress(Exception):
            HourLock(engine, TABLES, HOUR, "run", wait=False, on_progress=print).acquire().__enter__()
        said.extend(str(row[0]) for row in sql("SELECT run_id FROM hour_locks"))

    prune(engine, meddle=second)
    assert said[0].startswith("batch-assets prune ")
    assert len(set(said)) == 1


def test_a_prune_that_lost_the_hour_to_a_run_removes_nothing_more(
    engine: sa.Engine, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BATCH_ROWS", 10)
    predicted(sql, 30)
    summed_up(sql, 30)
    steps = iter([None, "UPDATE hour_locks SET run_id = 'second'"])

    def take_over(_rows: int) -> None:
        statement = next(steps)
        if statement:
            sql(statement)

    assert prune(engine, meddle=take_over) == PrunedHour(HOUR, 10, IN_USE)
    assert assert_hour_adds_up(sql) == Counts(20, 20, 0, 0)
    assert hours(sql, "run_summary") == [START]


def test_a_late_item_that_comes_meanwhile_stays_pending_and_is_scored_before_it_goes(
    engine: sa.Engine, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BATCH_ROWS", 10)
    predicted(sql, 30)
    summed_up(sql, 30)
    late: list[int] = []

    def arrive(_rows: int) -> None:
        # Both where it has been and where it comes to next.
        if not late:
            late.extend(insert_items(sql, GOOD[:1], START) + insert_items(sql, GOOD[:1], LAST))

    assert prune(engine, meddle=arrive) == PrunedHour(HOUR, 30, UNSCORED, 2)
    assert assert_hour_adds_up(sql) == Counts(2, 0, 0, 2)
    assert [row[0] for row in sql("SELECT id FROM items ORDER BY id")] == late
    assert hours(sql, "run_summary") == [START]
    assert prune(engine) == PrunedHour(HOUR, 0, UNSCORED, 2)
    sql("UPDATE items SET prediction = '[1, 0, 0]'")
    assert prune(engine) == PrunedHour(HOUR, 2)
    assert set(map(len, rows_of(sql, *ALL).values())) == {0}


@contextlib.contextmanager
def transaction(environment: dict[str, str]) -> Iterator[pymysql.cursors.Cursor]:
    """The service in the middle of a transaction, which it takes back in the end."""
    connection = pymysql.connect(
        host=environment["MYSQL_SERVER"],
        port=int(environment["MYSQL_PORT"]),
        user=environment["MYSQL_USER"],
        password=environment["MYSQL_PASSWORD"],
        database=environment["MYSQL_DATABASE"],
        init_command="SET time_zone = '+00:00', innodb_lock_wait_timeout = 2",
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        yield cursor
        connection.rollback()


INSERT = "INSERT INTO items (`values`, created_datetime) VALUES (%s, %s)"


def test_what_a_transaction_of_the_service_holds_is_passed_over_and_nobody_waits(
    engine: sa.Engine, sql: Sql, tables: dict[str, str], server_only: None
) -> None:
    keys = predicted(sql, 20)
    failed(sql)
    summed_up(sql, 21)
    start = time.monotonic()
    with transaction(tables) as service:
        service.execute(INSERT, (TEXT, "2026-11-20 10:00:00"))
        service.execute(INSERT, (TEXT, HALF_PAST))
        service.execute("UPDATE items SET `values` = '[2]' WHERE id = %s", (keys[7],))
        assert prune(engine) == PrunedHour(HOUR, 20, LOCKED, 1)
    # By itself the server would wait for 50 seconds.
    assert time.monotonic() - start < 40
    assert [row[0] for row in sql("SELECT id FROM items")] == [keys[7]]
    assert hours(sql, "run_summary") == [START]
    assert prune(engine) == PrunedHour(HOUR, 1)
    assert set(map(len, rows_of(sql, *ALL).values())) == {0}


def test_the_service_inserts_and_updates_while_a_batch_is_being_removed(
    engine: sa.Engine, sql: Sql, tables: dict[str, str], server_only: None
) -> None:
    predicted(sql, 20)
    (other,) = predicted(sql, 1, END)
    summed_up(sql, 20)
    inserted: list[str] = []

    def insert(_connection: Any, _cursor: Any, statement: str, _parameters: Any, _context: Any, _many: Any) -> None:
        # The rows are deleted, and the transaction is not at its end.
        if statement.startswith("DELETE FROM items"):
            with transaction(tables) as service:
                for created in (START, HALF_PAST, LAST, END, "2026-11-20 10:00:00"):
                    service.execute(INSERT, (TEXT, created))
                    inserted.append(created)
                service.execute("UPDATE items SET prediction = NULL WHERE id = %s", (other,))
                service.execute(
                    "INSERT INTO failed_items (item_id, hour, code, message, attempts, first_failed_at, last_failed_at,"
                    " model_version, run_id, values_checksum) VALUES (999, %s, '', '', 1, %s, %s, '', '', 0)",
                    (END, END, END),
                )

    event.listen(engine, "after_cursor_execute", insert)
    try:
        assert prune(engine) == PrunedHour(HOUR, 20)
    finally:
        event.remove(engine, "after_cursor_execute", insert)
    assert len(inserted) == 5


def test_reading_on_in_an_hour_costs_a_batch_and_not_the_hour(
    engine: sa.Engine, sql: Sql, server_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BATCH_ROWS", 20)
    predicted(sql, 2_000)
    predicted(sql, 1_000, END)
    sql("ANALYZE TABLE items")
    plans: list[str] = []

    def watch(connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: Any) -> None:
        if statement.startswith("SELECT items.id, items.created_datetime"):
            (plan,) = connection.exec_driver_sql(f"EXPLAIN FORMAT=TRADITIONAL {statement}", parameters).mappings().all()
            plans.append(f"{plan['key']} {plan['Extra']}")

    event.listen(engine, "after_cursor_execute", watch)
    try:
        assert prune(engine) == PrunedHour(HOUR, 2_000)
    finally:
        event.remove(engine, "after_cursor_execute", watch)
    assert not [plan for plan in plans if "filesort" in plan or not plan.startswith("ix_items_created_datetime")]


def test_an_account_needs_the_rights_to_read_and_to_delete_and_to_hold_an_hour(
    engine: sa.Engine, server: Server, sql: Sql, tables: dict[str, str], server_only: None
) -> None:
    predicted(sql)
    failed(sql)
    summed_up(sql, 4)
    database, user = tables["MYSQL_DATABASE"], f"prune_{secrets.token_hex(4)}"
    server.execute(f"CREATE USER '{user}'@'%' IDENTIFIED BY 'secret'")
    try:
        for table in (
            "items",
            "failed_items",
            "run_summary",
            "hour_requests",
            "hour_profiles",
            "hour_quality",
            "hour_models",
            "item_models",
            "challenger_predictions",
            "challenger_hours",
            "actuals",
        ):
            server.execute(f"GRANT SELECT, DELETE ON {database}.{table} TO '{user}'")
        server.execute(f"GRANT SELECT, INSERT, DELETE ON {database}.hour_locks TO '{user}'")
        settings = database_settings(tables | {"MYSQL_USER": user, "MYSQL_PASSWORD": "secret"})
        limited = engine_for(settings)
        assert old_hours(limited, TABLES, NEXT.end) == [HOUR]
        assert prune(limited) == PrunedHour(HOUR, 4)
        limited.dispose()
    finally:
        server.execute(f"DROP USER '{user}'")
    assert set(map(len, rows_of(sql, *ALL).values())) == {0}
