"""Writing waits for a ceiling, a loaded server and replicas that are behind: with real servers that are."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.connection.throttle import Throttle
from batch_assets.errors import DatabaseError, DatabaseUnavailableError, SettingsError
from batch_assets.settings.database import MySQLSettings, database_settings
from batch_assets.settings.throttle import ThrottleSettings
from batch_assets_tests.support.servers import Server, free_port
from benchmarks.servers import server_of_kind

SERVER = {"MYSQL_SERVER": "db", "MYSQL_USER": "batch", "MYSQL_PASSWORD": "secret", "MYSQL_DATABASE": "shop"}
# A replica that has lost its source comes back to it after 60.
PATIENCE_SECONDS = 120
# Far above what others have running on the server of the tests, and below the number of connections it takes.
LIMIT, BUSY = 20, 30


@pytest.fixture
def engine(server_environment: dict[str, str]) -> sa.Engine:
    return engine_for(database_settings(server_environment))


def throttle(engine: sa.Engine, told: list[str] | None = None, **settings: Any) -> Throttle:
    settings = {"max_pause_seconds": PATIENCE_SECONDS} | settings
    return Throttle(engine, ThrottleSettings(**settings), ([] if told is None else told).append)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextlib.contextmanager
def writing(throttle: Throttle, rows: int = 10) -> Iterator[Future[None]]:
    """A writer that asks before it writes, in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(throttle.before_write, rows)


# The settings


def test_without_variables_nothing_is_limited() -> None:
    settings = ThrottleSettings.from_environment(SERVER | {"BATCH_MAX_LOAD": "", "BATCH_REPLICAS": ""})
    assert settings == ThrottleSettings(None, (), (), 5.0, 1800.0)


def test_each_variable_sets_what_it_names() -> None:
    settings = ThrottleSettings.from_environment(
        SERVER
        | {
            "MYSQL_SSL_MODE": "REQUIRED",
            "BATCH_MAX_ROWS_PER_SECOND": "20000",
            "BATCH_MAX_LOAD": "Threads_running=25, Threads_connected=800.5",
            "BATCH_REPLICAS": "replica1:3307, replica2,[::1]:3308",
            "BATCH_MAX_LAG_SECONDS": "1.5",
            "BATCH_MAX_PAUSE_SECONDS": "60",
        }
    )
    assert settings.max_rows_per_second == 20000
    assert settings.max_load == (("Threads_running", 25), ("Threads_connected", 800.5))
    assert [(each.server, each.port) for each in settings.replicas] == [
        ("replica1", 3307),
        ("replica2", 3306),
        ("::1", 3308),
    ]
    assert {(each.user, each.password, each.tls.mode) for each in settings.replicas} == {
        ("batch", "secret", "REQUIRED")
    }
    assert (settings.max_lag_seconds, settings.max_pause_seconds) == (1.5, 60)


LOAD = "set it to status variables with the value above which writing pauses, for example Threads_running=25,"
REPLICAS = "set it to the replicas as host:port, with commas between them, for example replica1:3306,replica2:3306."


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("BATCH_MAX_ROWS_PER_SECOND", "0", "set it to a whole number of 1 or more."),
        ("BATCH_MAX_ROWS_PER_SECOND", "1e4", "set it to a whole number of 1 or more."),
        ("BATCH_MAX_LOAD", "25", LOAD),
        ("BATCH_MAX_LOAD", "Threads_running>25", LOAD),
        ("BATCH_MAX_LOAD", "Threads_running=25,", LOAD),
        ("BATCH_MAX_LOAD", "Threads_running=many", LOAD),
        ("BATCH_MAX_LOAD", "Threads_running=-1", LOAD),
        ("BATCH_REPLICAS", "replica1:3306;replica2:3306", REPLICAS),
        ("BATCH_REPLICAS", "mysql://replica1", REPLICAS),
        ("BATCH_REPLICAS", "replica1:0", REPLICAS),
        ("BATCH_REPLICAS", "replica1:65536", REPLICAS),
        ("BATCH_REPLICAS", "replica1:3306,", REPLICAS),
        ("BATCH_MAX_LAG_SECONDS", "nan", "set it to a number of 0 or more."),
        ("BATCH_MAX_PAUSE_SECONDS", "-1", "set it to a number of 0 or more."),
        ("BATCH_MAX_PAUSE_SECONDS", "7200", "set it to 3600 or less, since the server ends the connection by which"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_what_can(name: str, value: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ThrottleSettings.from_environment(SERVER | {name: value})
    assert str(caught.value).startswith(f"{name} is {value!r}: {sentence}")


@pytest.mark.parametrize(("name", "value"), [("BATCH_MAX_LOAD", "Threads_running=25"), ("BATCH_REPLICAS", "replica1")])
def test_an_sqlite_file_has_neither_load_nor_replicas(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is '{value}', but the database is the SQLite file .*: unset"):
        ThrottleSettings.from_environment({"BATCH_ASSETS_HOME": str(tmp_path), name: value})


# The ceiling: only lower bounds, which no busy machine can break


def test_with_nothing_set_the_server_is_not_asked() -> None:
    nobody = engine_for(MySQLSettings("127.0.0.1", free_port(), "batch", "", "shop"))
    unlimited = throttle(nobody)
    unlimited.before_write(10**9)
    assert unlimited.paused_seconds == 0


def test_the_ceiling_holds_from_the_first_transaction_on(tmp_path: Path) -> None:
    sqlite = engine_for(database_settings({"BATCH_ASSETS_HOME": str(tmp_path)}))
    # Whatever else is set: an SQLite file has nothing that could be asked.
    limited = throttle(sqlite, max_rows_per_second=1000, max_load=(("Threads_running", 0),))
    start = time.monotonic()
    for _ in range(3):
        limited.before_write(1000)
    assert time.monotonic() - start >= 2
    assert 1.5 < limited.paused_seconds <= time.monotonic() - start


def test_idle_time_is_not_made_up_for() -> None:
    limited = throttle(sa.create_engine("sqlite://"), max_rows_per_second=1000)
    limited.before_write(1)
    time.sleep(1)
    start = time.monotonic()
    for _ in range(3):
        limited.before_write(500)
    assert time.monotonic() - start >= 1


# The load of the server


@contextlib.contextmanager
def busy(server: Server) -> Iterator[None]:
    """A server on which many statements run, until the end of the context."""

    def sleep(connection: "pymysql.Connection[Any]") -> None:
        with contextlib.suppress(pymysql.err.MySQLError), connection.cursor() as cursor:
            cursor.execute("SELECT SLEEP(600)")

    connections = [
        pymysql.connect(host=server.host, port=server.port, user=server.user, password=server.password)
        for _ in range(BUSY)
    ]
    threads = [threading.Thread(target=sleep, args=(connection,)) for connection in connections]
    try:
        for thread in threads:
            thread.start()
        wait_until(lambda: int(server.execute("SHOW GLOBAL STATUS LIKE 'Threads_running'")[0][1]) > LIMIT)
        yield
    finally:
        for connection in connections:
            server.execute(f"KILL {connection.thread_id()}")  # type: ignore[no-untyped-call]  # PyMySQL's
        for thread in threads:
            thread.join()
        for connection in connections:
            with contextlib.suppress(pymysql.err.Error):
                connection.close()


def test_writing_pauses_while_the_server_is_loaded_and_goes_on_afterwards(server: Server, engine: sa.Engine) -> None:
    told: list[str] = []
    # The case of the name is nobody's business: the server's own tools take any.
    loaded = throttle(engine, told, max_load=(("threads_RUNNING", LIMIT),))
    loaded.before_write(10)
    assert told == []
    with contextlib.ExitStack() as load:
        load.enter_context(busy(server))
        time.sleep(1)  # it looks once a second
        with writing(loaded) as writer:
            wait_until(lambda: bool(told))
            time.sleep(1.5)
            assert not writer.done()
            load.close()
            writer.result(PATIENCE_SECONDS)
    assert len(told) == 2
    assert told[0].startswith("Writing pauses: threads_RUNNING is ")
    assert told[0].endswith(f", more than {LIMIT} (BATCH_MAX_LOAD).")
    assert told[1].startswith("Writing goes on after a pause of ")
    assert loaded.paused_seconds >= 1.5


def test_a_server_that_stays_loaded_fails_the_step_to_be_tried_again(engine: sa.Engine) -> None:
    told: list[str] = []
    loaded = throttle(engine, told, max_load=(("Threads_connected", 0),), max_pause_seconds=1.5)
    with pytest.raises(DatabaseUnavailableError) as fault:
        loaded.before_write(10)
    assert str(fault.value).startswith("Writing has paused for 1.5 seconds, and still Threads_connected is ")
    assert str(fault.value).endswith("To wait longer, set BATCH_MAX_PAUSE_SECONDS.")
    assert len(told) == 1
    assert loaded.paused_seconds >= 1.5


def test_what_is_no_number_of_the_server_fails_before_anything_is_written(engine: sa.Engine) -> None:
    told: list[str] = []
    limits = [("Threads_connected", 0), ("Threads_runing", 25), ("Ssl_cipher", 1)]
    with pytest.raises(SettingsError, match=r"^BATCH_MAX_LOAD names Threads_runing, Ssl_cipher, for which \S+ has no"):
        throttle(engine, told, max_load=tuple(limits)).before_write(10)
    assert told == []


def test_the_server_is_asked_once_a_second_and_no_connection_kept(engine: sa.Engine) -> None:
    asked: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))
    loaded = throttle(engine, max_load=(("Threads_running", 10**6),))
    start = time.monotonic()
    while time.monotonic() - start < 1.5:
        loaded.before_write(10)
        assert engine.pool.status().endswith("Current Checked out connections: 0")
    questions = [statement for statement in asked if statement.startswith("SHOW GLOBAL STATUS")]
    assert 1 <= len(questions) <= 1 + (time.monotonic() - start)


# The replicas


@dataclass
class Replication:
    """A server and its replica."""

    source: Server
    replica: Server

    def settings(self, user: str = "reader", **environment: str) -> ThrottleSettings:
        return ThrottleSettings.from_environment(
            self.environment(user) | {"BATCH_REPLICAS": f"127.0.0.1:{self.replica.port}"} | environment
        )

    def environment(self, user: str = "reader") -> dict[str, str]:
        return self.source.environment("shop") | {"MYSQL_USER": user, "MYSQL_PASSWORD": "secret"}

    def throttle(self, told: list[str] | None = None, user: str = "reader", **environment: str) -> Throttle:
        engine = engine_for(database_settings(self.environment(user)))
        return Throttle(engine, self.settings(user, **environment), ([] if told is None else told).append)

    def begin(self) -> None:
        """Has the replica follow the source from here on."""
        file, position, *_ = self.source.execute(
            "SHOW BINLOG STATUS" if self.source.is_mariadb else "SHOW BINARY LOG STATUS"
        )[0]
        self._change(
            f"{{0}}_HOST = '127.0.0.1', {{0}}_PORT = {self.source.port}, {{0}}_USER = '{self.source.user}', "
            f"{{0}}_PASSWORD = '{self.source.password}', {{0}}_SSL = {0 if self.source.is_mariadb else 1}, "
            f"{{0}}_LOG_FILE = '{file}', {{0}}_LOG_POS = {position}"
        )
        self.replica.execute("START REPLICA")

    def delay(self, seconds: int) -> None:
        """Has the replica do everything so much later."""
        self.replica.execute("STOP REPLICA")
        self._change(f"{{0}}_DELAY = {seconds}")
        self.replica.execute("START REPLICA")

    def caught_up(self) -> bool:
        return self.source.execute("SELECT * FROM shop.items") == self.replica.execute("SELECT * FROM shop.items")

    def _change(self, options: str) -> None:
        words = ("MASTER TO", "MASTER") if self.source.is_mariadb else ("REPLICATION SOURCE TO", "SOURCE")
        self.replica.execute(f"CHANGE {words[0]} {options.format(words[1])}")


@pytest.fixture(scope="module")
def servers(server: Server) -> Iterator[Replication]:
    """Two private servers of the kind that the tests see, one the replica of the other."""
    kind = "mariadb" if server.is_mariadb else "mysql"
    with server_of_kind(kind) as source, server_of_kind(kind) as replica:
        source.restart("--log-bin=log", "--server-id=1")
        replica.restart("--server-id=2")
        both = Replication(source.server, replica.server)
        both.begin()
        # They reach the replica as everything else does.
        both.source.execute("CREATE DATABASE shop")
        both.source.execute("CREATE TABLE shop.items (id INTEGER PRIMARY KEY AUTO_INCREMENT)")
        for user in ("reader", "stranger"):
            both.source.execute(f"CREATE USER {user} IDENTIFIED BY 'secret'")
            both.source.execute(f"GRANT SELECT ON shop.* TO {user}")
        right = "REPLICA MONITOR" if server.is_mariadb else "REPLICATION CLIENT"
        both.source.execute(f"GRANT {right} ON *.* TO reader")
        wait_until(lambda: replica.server.execute("SELECT user FROM mysql.user WHERE user = 'stranger'") != [])
        yield both


@pytest.fixture
def replication(servers: Replication) -> Iterator[Replication]:
    """The two as they are when all is well."""
    wait_until(servers.caught_up)
    yield servers
    servers.delay(0)


def test_writing_does_not_wait_for_a_replica_that_keeps_up(replication: Replication) -> None:
    told: list[str] = []
    replication.throttle(told).before_write(10)
    assert told == []


def test_writing_pauses_while_a_replica_is_behind_and_goes_on_when_it_has_caught_up(replication: Replication) -> None:
    told: list[str] = []
    behind = replication.throttle(told, BATCH_MAX_LAG_SECONDS="0.5")
    replication.delay(3600)
    replication.source.execute("INSERT INTO shop.items VALUES ()")
    time.sleep(2)
    with writing(behind) as writer:
        wait_until(lambda: bool(told))
        assert not writer.done()
        assert not replication.caught_up()
        replication.delay(0)
        writer.result(PATIENCE_SECONDS)
    assert told[0].startswith(f"Writing pauses: the replica 127.0.0.1:{replication.replica.port} is ")
    assert told[0].endswith(" seconds behind, more than 0.5 (BATCH_MAX_LAG_SECONDS).")
    assert told[1].startswith("Writing goes on after a pause of ")
    assert len(told) == 2
    wait_until(replication.caught_up)


@pytest.mark.parametrize("what", ["REPLICA SQL_THREAD", "REPLICA"])
def test_a_replica_that_has_stopped_counts_as_behind(replication: Replication, what: str) -> None:
    told: list[str] = []
    replication.replica.execute(f"STOP {what}")
    with writing(replication.throttle(told)) as writer:
        wait_until(lambda: bool(told))
        assert not writer.done()
        replication.replica.execute("START REPLICA")
        writer.result(PATIENCE_SECONDS)
    address = f"127.0.0.1:{replication.replica.port}"
    assert told[0] == f"Writing pauses: the replica {address} does not replicate (it was stopped)."


def test_the_reason_why_a_replica_does_not_go_on_is_told(replication: Replication) -> None:
    told: list[str] = []
    [(last,)] = replication.source.execute("SELECT COALESCE(MAX(id), 0) FROM shop.items")
    replication.replica.execute(f"INSERT INTO shop.items VALUES ({last + 1})")
    replication.source.execute(f"INSERT INTO shop.items VALUES ({last + 1})")
    # MySQL's coordinator says that a worker failed, and where to read why.
    reason = "Duplicate entry" if replication.replica.is_mariadb else "failed executing transaction"
    wait_until(lambda: reason in str(replication.replica.execute("SHOW REPLICA STATUS")))
    with writing(replication.throttle(told)) as writer:
        wait_until(lambda: bool(told))
        replication.replica.execute(f"DELETE FROM shop.items WHERE id = {last + 1}")
        replication.replica.execute("START REPLICA")
        writer.result(PATIENCE_SECONDS)
    assert "does not replicate (" in told[0]
    assert reason in told[0]


def test_a_replica_that_does_not_answer_counts_as_behind(replication: Replication) -> None:
    address = f"127.0.0.1:{free_port()}"
    unknown = replication.throttle(BATCH_REPLICAS=address, BATCH_MAX_PAUSE_SECONDS="0")
    with pytest.raises(DatabaseUnavailableError, match=f"and still the replica {address} does not answer"):
        unknown.before_write(10)


def test_what_is_no_replica_is_refused_at_once(replication: Replication) -> None:
    address = f"127.0.0.1:{replication.source.port}"
    wrong = replication.throttle(BATCH_REPLICAS=address)
    with pytest.raises(SettingsError, match=f"^BATCH_REPLICAS names {address}, which is no replica"):
        wrong.before_write(10)


def test_an_account_that_may_not_ask_is_told_which_right_it_lacks(replication: Replication) -> None:
    right = "REPLICA MONITOR" if replication.replica.is_mariadb else "REPLICATION CLIENT"
    sentence = f"^User 'stranger' may not ask the replica .*: GRANT {right} ON ... to it there, or unset BATCH_REPLICAS"
    with pytest.raises(DatabaseError, match=sentence) as fault:
        replication.throttle(user="stranger").before_write(10)
    assert fault.value.permanent
