"""One writer an hour: a second run waits or is told who has it; whoever lost it writes nothing more."""

import datetime
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import sqlalchemy as sa

from batch_assets.database.records import hour_lock
from batch_assets.database.records.hour_lock import HourLock, server_lock
from batch_assets.errors import HourBusyError
from batch_assets.hours import Hour
from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import TABLES, engine_from_environment, lose_connections_on_their_return
from batch_assets_tests.support.pipeline import START
from batch_assets_tests.support.servers import Server

pytestmark = pytest.mark.usefixtures("tables")

HOUR = Hour(datetime.datetime.fromisoformat(START))
HOLDER = f"""
import datetime, sys
from batch_assets_tests.support.engines import TABLES, engine_from_environment
from batch_assets.database.records.hour_lock import HourLock
from batch_assets.hours import Hour
hour = Hour(datetime.datetime.fromisoformat("{START}"))
with HourLock(engine_from_environment(), TABLES, hour, "killed", wait=False, on_progress=print).acquire():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def engine(tables: dict[str, str]) -> sa.Engine:
    return engine_from_environment()


def lock(
    engine: sa.Engine, run_id: str, *, wait: bool = False, hour: Hour = HOUR, on_progress: Callable[[str], None] = print
) -> HourLock:
    return HourLock(engine, TABLES, hour, run_id, wait=wait, on_progress=on_progress)


def test_a_second_run_is_told_which_run_has_the_hour(engine: sa.Engine) -> None:
    sentence = "2026-11-02-05:00 is held by run first since .* UTC"
    with lock(engine, "first").acquire(), pytest.raises(HourBusyError, match=sentence) as caught:
        lock(engine, "second").acquire().__enter__()
    assert not caught.value.transient
    assert not caught.value.permanent
    with lock(engine, "second").acquire():
        pass


def test_hours_do_not_wait_for_each_other(engine: sa.Engine) -> None:
    with lock(engine, "first").acquire(), lock(engine, "second", hour=Hour(HOUR.end)).acquire():
        pass


def test_a_second_run_that_waits_gets_the_hour_when_the_first_is_done(engine: sa.Engine, sql: Sql) -> None:
    said: list[str] = []
    got = threading.Event()

    def second() -> None:
        with lock(engine, "second", wait=True, on_progress=said.append).acquire():
            got.set()

    with ExitStack() as stack:
        stack.enter_context(lock(engine, "first").acquire())
        waiting = threading.Thread(target=second)
        waiting.start()
        assert not got.wait(1)
    assert got.wait(30)
    waiting.join()
    assert len(said) == 1
    assert said[0].startswith("Waiting for run first since ")
    assert sql("SELECT COUNT(*) FROM hour_locks") == [(0,)]


def test_the_hour_is_free_when_its_holder_is_killed(engine: sa.Engine, sql: Sql) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        env={**os.environ, "PYTHONPATH": str(root_folder())},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert sql("SELECT run_id FROM hour_locks") == [("killed",)]
        with pytest.raises(HourBusyError, match="run killed"):
            lock(engine, "second").acquire().__enter__()
        process.kill()
    with lock(engine, "second", wait=True).acquire():
        assert sql("SELECT run_id FROM hour_locks") == [("second",)]


def test_a_run_that_lost_the_hour_to_another_one_writes_nothing_more(engine: sa.Engine, sql: Sql) -> None:
    mine = lock(engine, "first")
    with mine.acquire():
        with engine.begin() as connection:
            mine.check(connection)
        sql("UPDATE hour_locks SET run_id = 'second'")
        with (
            pytest.raises(HourBusyError, match=r"lost .* the hour 2026-11-02-05:00, to run second"),
            engine.begin() as c,
        ):
            mine.check(c)
    assert sql("SELECT run_id FROM hour_locks") == [("second",)]


def test_who_takes_an_hour_over_waits_for_the_transaction_in_flight(
    engine: sa.Engine, sql: Sql, server_only: None
) -> None:
    mine = lock(engine, "first")
    taken = threading.Event()

    def take_over() -> None:
        with lock(engine, "second", wait=True).acquire():
            taken.set()

    with mine.acquire():
        with engine.begin() as connection:
            mine.check(connection)
            sql("KILL %s", *sql("SELECT IS_USED_LOCK(%s)", server_lock(engine, TABLES.pipeline, HOUR))[0])
            rival = threading.Thread(target=take_over)
            rival.start()
            assert not taken.wait(1)
        assert taken.wait(30)
        rival.join()


def test_a_connection_that_holds_an_hour_is_not_silent(
    engine: sa.Engine, sql: Sql, server_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hour_lock, "SILENCE_SECONDS", 2)
    monkeypatch.setattr(hour_lock, "HEARTBEAT_SECONDS", 0.5)
    with lock(engine, "first").acquire():
        assert not threading.Event().wait(4)
        with pytest.raises(HourBusyError, match="run first"):
            lock(engine, "second").acquire().__enter__()


def test_the_connection_that_held_an_hour_serves_others_as_if_it_never_had(
    engine: sa.Engine, sql: Sql, server_only: None
) -> None:
    with lock(engine, "first").acquire():
        ((holder,),) = sql("SELECT IS_USED_LOCK(%s)", server_lock(engine, TABLES.pipeline, HOUR))
    assert sql("SELECT IS_FREE_LOCK(%s)", server_lock(engine, TABLES.pipeline, HOUR)) == [(1,)]
    session = "SELECT CONNECTION_ID(), @@session.wait_timeout = @@global.wait_timeout, @@session.autocommit"
    assert isinstance(engine.pool, sa.QueuePool)
    with ExitStack() as stack:
        kept = [stack.enter_context(engine.connect()) for _ in range(engine.pool.checkedin())]
        found = {row[0]: tuple(row[1:]) for row in (c.exec_driver_sql(session).one() for c in kept)}
        assert {c.get_isolation_level() for c in kept} == {"REPEATABLE READ"}
    assert found[holder] == (1, 0)


@pytest.mark.parametrize("noticed", [False, True])
def test_a_connection_that_was_lost_while_it_held_an_hour_serves_nobody(
    engine: sa.Engine, sql: Sql, server_only: None, monkeypatch: pytest.MonkeyPatch, *, noticed: bool
) -> None:
    monkeypatch.setattr(hour_lock, "HEARTBEAT_SECONDS", 0.1 if noticed else 60)
    with lock(engine, "first").acquire():
        ((holder,),) = sql("SELECT IS_USED_LOCK(%s)", server_lock(engine, TABLES.pipeline, HOUR))
        sql("KILL %s", holder)
        threading.Event().wait(1)
    with lock(engine, "second").acquire():
        assert sql("SELECT IS_USED_LOCK(%s)", server_lock(engine, TABLES.pipeline, HOUR)) not in (
            [(holder,)],
            [(None,)],
        )


def test_a_connection_that_is_lost_once_the_hour_is_free_is_no_fault(
    engine: sa.Engine, server: Server, server_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, lock(engine, "first").acquire():
        lose_connections_on_their_return(patch, server)
    with lock(engine, "second").acquire():
        pass


@pytest.fixture
def server_only(tables: dict[str, str]) -> None:
    if "MYSQL_SERVER" not in tables:
        pytest.skip("SQLite's lock is a file's, which the operating system takes back")
