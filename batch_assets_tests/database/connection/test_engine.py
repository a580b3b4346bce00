import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest
import sqlalchemy as sa

from batch_assets.database.connection import engine as engine_module
from batch_assets.database.connection.engine import engine_for, engine_from_url, snapshot, writing
from batch_assets.database.schema.setup import initialize_database
from batch_assets.errors import DatabaseAccessError, DatabaseError, DatabaseUnavailableError
from batch_assets.settings.database import MySQLSettings, SQLiteSettings, database_settings
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import ITEMS, engine_from_environment, lose_connections_on_their_return
from batch_assets_tests.support.servers import PrivateServer, Server, free_port

LATER = "What was committed stays; the same run may succeed later."


@pytest.fixture
def engine(database_environment: dict[str, str]) -> sa.Engine:
    return engine_from_environment()


@pytest.fixture
def on_server(server_environment: dict[str, str]) -> sa.Engine:
    return engine_from_environment()


@pytest.fixture
def numbers(on_server: sa.Engine, sql: Sql) -> sa.Engine:
    """A database with a table of two rows."""
    sql("CREATE TABLE numbers (id INTEGER PRIMARY KEY, number LONGTEXT) ENGINE=InnoDB")
    sql("INSERT INTO numbers VALUES (1, '1'), (2, '2')")
    return on_server


@pytest.fixture(scope="module")
def odd_server() -> Iterator[PrivateServer]:
    """A server whose defaults are as unlike ours as they can be, and whose settings a test may change."""
    options = ("--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES", "--default-storage-engine=MyISAM")
    with PrivateServer(*options, "--character-set-server=latin1", "--max-allowed-packet=2M") as private:
        private.server.execute("CREATE DATABASE odd")
        yield private


@pytest.fixture
def odd(odd_server: PrivateServer) -> Iterator[sa.Engine]:
    engine = engine_for(database_settings(odd_server.server.environment("odd")))
    yield engine
    engine.dispose()


def transient(fault: pytest.ExceptionInfo[DatabaseError]) -> str:
    assert type(fault.value) is DatabaseUnavailableError
    assert fault.value.transient
    return str(fault.value)


def permanent(fault: pytest.ExceptionInfo[DatabaseError]) -> str:
    assert type(fault.value) is DatabaseError
    assert not fault.value.transient
    return str(fault.value)


def shut_out(fault: pytest.ExceptionInfo[DatabaseError]) -> str:
    assert type(fault.value) is DatabaseAccessError
    assert not fault.value.transient
    return str(fault.value)


def session(connection: sa.Connection) -> int:
    return int(connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one())


# Sessions


def test_sessions_are_in_utc_and_strict_whatever_the_server_is(odd: sa.Engine, odd_server: PrivateServer) -> None:
    server = odd_server.server
    assert server.execute("SELECT @@global.time_zone, @@global.sql_mode") == [
        ("+05:30", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES")
    ]
    server.execute("CREATE TABLE odd.times (at TIMESTAMP NULL, short VARCHAR(3), text LONGTEXT CHARACTER SET utf8mb4)")
    text = """a \\ backslash, 'quotes', "double ones", 100 %, \\' and 🌸"""
    with odd.begin() as connection:
        connection.execute(sa.text("INSERT INTO times VALUES ('2026-11-01 05:00:00', \"abc\", :text)"), {"text": text})
        assert connection.execute(sa.text("SELECT TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), NOW())")).scalar() == 0
    assert server.execute("SELECT UNIX_TIMESTAMP(at), short, text FROM odd.times") == [(1793509200, "abc", text)]
    with pytest.raises(DatabaseError, match=r"refused a statement \(1406: Data too long") as fault, odd.begin() as one:
        one.exec_driver_sql("INSERT INTO times (short) VALUES ('abcd')")
    assert permanent(fault).endswith("Nothing of it was stored.")


def test_tables_are_the_same_whatever_the_defaults_of_the_server_are(odd: sa.Engine, odd_server: PrivateServer) -> None:
    assert "created table items" in initialize_database(odd, ITEMS)
    rows = odd_server.server.execute(
        "SELECT table_name, engine, table_collation FROM information_schema.tables WHERE table_schema = 'odd' AND "
        "table_name IN ('items', 'failed_items', 'run_summary', 'hour_locks', 'hour_requests')"
    )
    assert len(rows) == 5
    assert {(row[1], str(row[2]).split("_")[0]) for row in rows} == {("InnoDB", "utf8mb4")}
    assert initialize_database(odd, ITEMS) == []


def test_the_engine_of_a_database_is_one_for_the_process(server_environment: dict[str, str]) -> None:
    first = engine_from_environment()
    assert engine_from_environment() is first
    environment = server_environment
    url = sa.URL.create(
        "mysql+pymysql",
        environment["MYSQL_USER"],
        environment["MYSQL_PASSWORD"],
        environment["MYSQL_SERVER"],
        int(environment["MYSQL_PORT"]),
        environment["MYSQL_DATABASE"],
    )
    assert engine_from_url(url.render_as_string(hide_password=False)) is first


# Faults that pass


def test_a_deadlock_is_transient(numbers: sa.Engine) -> None:
    faults: list[BaseException] = []

    def update(connection: sa.Connection, number: int) -> None:
        try:
            connection.exec_driver_sql(f"UPDATE numbers SET number = 'new' WHERE id = {number}")
        except DatabaseError as fault:
            connection.rollback()
            faults.append(fault)

    with numbers.connect() as first, numbers.connect() as second:
        update(first, 1)
        update(second, 2)
        waiting = threading.Thread(target=update, args=(first, 2))
        waiting.start()
        update(second, 1)
        waiting.join()
        first.rollback()
        second.rollback()
    (fault,) = faults
    assert isinstance(fault, DatabaseUnavailableError)
    assert "ended the transaction because of a deadlock (1213: Deadlock found" in str(fault)
    assert str(fault).endswith(LATER)


def test_waiting_too_long_for_a_lock_is_transient(numbers: sa.Engine) -> None:
    with numbers.connect() as first, numbers.connect() as second:
        first.exec_driver_sql("UPDATE numbers SET number = 3 WHERE id = 1")
        second.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = 1")
        with pytest.raises(DatabaseError) as fault:
            second.exec_driver_sql("UPDATE numbers SET number = 4 WHERE id = 1")
        second.rollback()
        second.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = DEFAULT")
    assert "waited too long for a lock that another transaction holds (1205: " in transient(fault)


def test_a_connection_that_was_lost_is_given_back_without_a_word_and_another_one_takes_its_place(
    on_server: sa.Engine, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    with on_server.connect() as connection:
        lost = session(connection)
        connection.commit()
        sql(f"KILL {lost}")
    assert caplog.records == []
    with on_server.connect() as connection:
        assert session(connection) != lost


def test_a_killed_connection_is_transient_and_the_next_one_works(numbers: sa.Engine, sql: Sql) -> None:
    with numbers.connect() as connection:
        connection.exec_driver_sql("UPDATE numbers SET number = 3")
        sql(f"KILL {session(connection)}")
        with pytest.raises(DatabaseError) as fault:
            connection.exec_driver_sql("UPDATE numbers SET number = 4")
    assert transient(fault).endswith(LATER)
    with numbers.connect() as connection:
        assert connection.exec_driver_sql("SELECT SUM(number) FROM numbers").scalar() == 3


def test_a_connection_that_is_lost_after_its_commit_takes_nothing_back(
    server: Server, numbers: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, writing(numbers) as connection:
        connection.exec_driver_sql("UPDATE numbers SET number = 5")
        lose_connections_on_their_return(patch, server)
    with numbers.connect() as connection:
        assert connection.exec_driver_sql("SELECT SUM(number) FROM numbers").scalar() == 10


def test_a_transaction_that_writes_sees_what_others_commit_and_the_next_that_reads_does_not(
    numbers: sa.Engine, sql: Sql
) -> None:
    seen = []
    for begin in (writing, sa.Engine.begin, writing):
        with begin(numbers) as connection:
            one = sa.text("SELECT number FROM numbers WHERE id = 1")
            connection.execute(one).all()
            sql("UPDATE numbers SET number = number + 2")
            seen.append(connection.execute(one).scalar())
    assert seen == ["3", "3", "7"]


def test_a_killed_statement_is_transient(server: Server, numbers: sa.Engine, sql: Sql) -> None:
    with numbers.connect() as connection:
        number = session(connection)

        def kill() -> None:
            while not sql(f"SELECT 1 FROM {server.processlist} WHERE id = %s AND info LIKE '%%a, %%'", number):
                time.sleep(0.01)
            sql(f"KILL QUERY {number}")

        killer = threading.Thread(target=kill)
        killer.start()
        tables = ", ".join(f"information_schema.columns {name}" for name in "abcd")
        with pytest.raises(DatabaseError) as fault:
            connection.exec_driver_sql(f"SELECT COUNT(*) FROM {tables} WHERE RAND() < 2")
        killer.join()
    assert "had the statement interrupted (1317: " in transient(fault)


def test_a_server_that_restarts_is_transient_and_works_afterwards(odd: sa.Engine, odd_server: PrivateServer) -> None:
    with odd.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        odd_server.stop()
        with pytest.raises(DatabaseError) as fault:
            connection.exec_driver_sql("SELECT 1")
    assert transient(fault).startswith("The server of database 'odd' on 127.0.0.1:")
    with pytest.raises(DatabaseError) as fault:
        odd.connect()
    assert transient(fault).startswith(f"No MySQL server answers at 127.0.0.1:{odd_server.port} (Can't connect")
    odd_server.start()
    with odd.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1


@contextlib.contextmanager
def limited_account(server: Server) -> Iterator[sa.Engine]:
    """Of an account without the rights of an administrator, which no setting of the server stops."""
    server.execute("CREATE USER limited IDENTIFIED BY 'Secret-pa55'")
    server.execute("GRANT SELECT, INSERT, UPDATE ON odd.* TO limited")
    engine = engine_for(MySQLSettings(server.host, server.port, "limited", "Secret-pa55", "odd"))
    try:
        yield engine
    finally:
        engine.dispose()
        server.execute("DROP USER limited")


def test_a_server_that_takes_no_writes_is_transient(odd_server: PrivateServer) -> None:
    server = odd_server.server
    server.execute("CREATE TABLE odd.written (id INTEGER) ENGINE=InnoDB")
    with limited_account(server) as engine:
        server.execute("SET GLOBAL read_only = 1")
        try:
            with pytest.raises(DatabaseError) as fault, engine.begin() as connection:
                connection.exec_driver_sql("INSERT INTO written VALUES (1)")
        finally:
            server.execute("SET GLOBAL read_only = 0")
        assert "takes no writes at the moment (read only, as after a failover) (1290: " in transient(fault)
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO written VALUES (1)")


def test_too_many_connections_of_a_user_are_transient(odd_server: PrivateServer) -> None:
    server = odd_server.server
    with limited_account(server) as engine:
        server.execute("ALTER USER limited WITH MAX_USER_CONNECTIONS 1")
        with engine.connect(), pytest.raises(DatabaseError) as fault:
            engine.connect()
    assert "allows no more of this user at the moment (1226: " in transient(fault)


def test_a_row_that_changed_since_the_snapshot_is_transient(odd: sa.Engine, odd_server: PrivateServer) -> None:
    server = odd_server.server
    if not server.execute("SHOW GLOBAL VARIABLES LIKE 'innodb_snapshot_isolation'"):
        return  # MariaDB's, on by default from 11.8 on
    server.execute("CREATE TABLE odd.changed (id INTEGER PRIMARY KEY, number INTEGER) ENGINE=InnoDB")
    server.execute("INSERT INTO odd.changed VALUES (1, 1)")
    with odd.connect() as connection:
        connection.exec_driver_sql("SET SESSION innodb_snapshot_isolation = ON")
        connection.exec_driver_sql("SELECT * FROM changed")
        server.execute("UPDATE odd.changed SET number = 2")
        with pytest.raises(DatabaseError) as fault:
            connection.exec_driver_sql("UPDATE changed SET number = 3")
        connection.rollback()
        connection.exec_driver_sql("SET SESSION innodb_snapshot_isolation = DEFAULT")
    assert "found a row that another transaction had changed (1020: " in transient(fault)


# Faults that stay


def test_a_server_that_is_not_there_is_transient_and_names_the_address() -> None:
    port = free_port()
    with pytest.raises(DatabaseError) as fault:
        engine_for(MySQLSettings("127.0.0.1", port, "me", "tiramisu", "x")).connect()
    assert transient(fault).startswith(f"No MySQL server answers at 127.0.0.1:{port} (")
    with pytest.raises(DatabaseError) as fault:
        engine_for(MySQLSettings("no-such-server.invalid", 3306, "me", "tiramisu", "x")).connect()
    assert transient(fault).startswith("No MySQL server answers at no-such-server.invalid:3306 (")
    assert "tiramisu" not in str(fault.value)


def test_a_wrong_password_stays_and_is_not_repeated(server: Server) -> None:
    engine = engine_for(MySQLSettings(server.host, server.port, "batch_assets_nobody", "tiramisu", "mysql"))
    with pytest.raises(DatabaseError) as fault:
        engine.connect()
    assert "refuses user 'batch_assets_nobody' (Access denied for user" in shut_out(fault)
    cause: BaseException | None = fault.value
    while cause:
        assert "tiramisu" not in f"{cause} {cause!r}"
        cause = cause.__cause__ or cause.__context__


def test_a_database_that_is_missing_or_closed_stays(odd_server: PrivateServer) -> None:
    server = odd_server.server
    with pytest.raises(DatabaseError) as fault:
        engine_for(database_settings(server.environment("none"))).connect()
    assert (
        shut_out(fault) == f"There is no database 'none' on 127.0.0.1:{server.port}: create it, or fix MYSQL_DATABASE."
    )
    with limited_account(server), pytest.raises(DatabaseError) as fault:
        engine_for(MySQLSettings(server.host, server.port, "limited", "Secret-pa55", "mysql")).connect()
    assert shut_out(fault).startswith("User 'limited' may not use database 'mysql' on 127.0.0.1:")


def test_a_table_that_was_changed_since_the_transaction_began_may_be_read_by_the_next_one(
    numbers: sa.Engine, sql: Sql
) -> None:
    sql("CREATE TABLE others (id INTEGER PRIMARY KEY) ENGINE=InnoDB")
    with snapshot(numbers) as connection:
        connection.exec_driver_sql("SELECT * FROM others").all()
        sql("ALTER TABLE numbers ADD COLUMN more INTEGER NOT NULL, DROP PRIMARY KEY, ADD PRIMARY KEY (more, id)")
        with pytest.raises(DatabaseError) as fault:
            connection.exec_driver_sql("SELECT * FROM numbers").all()
    assert "has had a table changed since the transaction began" in transient(fault)
    with snapshot(numbers) as connection:
        assert len(connection.exec_driver_sql("SELECT * FROM numbers").all()) == 2


def test_a_table_or_column_that_is_missing_stays_and_names_init_db(engine: sa.Engine, sql: Sql) -> None:
    with engine.connect() as connection, pytest.raises(DatabaseError) as fault:
        connection.exec_driver_sql("SELECT * FROM items")
    assert permanent(fault).startswith("A table is missing in ")
    assert permanent(fault).endswith("run `batch-assets init-db`.")
    sql("CREATE TABLE items (id INTEGER)")
    with engine.connect() as connection, pytest.raises(DatabaseError) as fault:
        connection.exec_driver_sql("SELECT prediction FROM items")
    assert permanent(fault).startswith("A column is missing in ")
    assert permanent(fault).endswith("run `batch-assets init-db`, which adds it or says what it must look like.")


def test_a_right_that_is_missing_stays(odd_server: PrivateServer) -> None:
    server = odd_server.server
    server.execute("CREATE TABLE odd.kept (id INTEGER)")
    with limited_account(server) as engine:
        with pytest.raises(DatabaseError) as fault, engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM kept")
        assert permanent(fault).startswith("User 'limited' lacks a right in database 'odd' on 127.0.0.1:")
        assert "DELETE command denied" in permanent(fault)


def test_a_value_that_is_larger_than_the_server_takes_names_its_limit(
    odd: sa.Engine, odd_server: PrivateServer
) -> None:
    odd_server.server.execute("CREATE TABLE odd.large (text LONGTEXT)")
    with pytest.raises(DatabaseError, match="max_allowed_packet") as fault, odd.begin() as connection:
        connection.execute(sa.text("INSERT INTO large VALUES (:text)"), {"text": "x" * (2 * 1024 * 1024)})
    # The server answers and closes: whether the driver sees the answer or the end is up to chance.
    assert fault.value.transient == any(f"({code}: " in str(fault.value) for code in (2006, 2013))


def test_faults_have_their_sentences_also_after_a_table_was_looked_at(numbers: sa.Engine) -> None:
    with numbers.connect() as connection:
        assert len(sa.inspect(connection).get_columns("numbers")) == 2
        assert not sa.inspect(connection).has_table("none")
        with pytest.raises(sa.exc.NoSuchTableError):
            sa.Table("none", sa.MetaData(), autoload_with=connection)
        with pytest.raises(DatabaseError, match="A table is missing in "):
            connection.exec_driver_sql("SELECT * FROM none")


def test_a_name_that_sounds_like_tls_is_no_fault_of_tls(numbers: sa.Engine) -> None:
    with (
        numbers.connect() as connection,
        pytest.raises(DatabaseError, match=r"A table is missing in .*ssl_certificates"),
    ):
        connection.exec_driver_sql("SELECT * FROM ssl_certificates")
    with pytest.raises(DatabaseUnavailableError, match=r"No MySQL server answers at ssl\.invalid:3306"):
        engine_for(MySQLSettings("ssl.invalid", 3306, "me", "tiramisu", "x")).connect()


def test_what_is_no_fault_of_the_database_speaks_for_itself(engine: sa.Engine) -> None:
    with pytest.raises(ZeroDivisionError), engine.begin():
        raise ZeroDivisionError
    with pytest.raises(sa.exc.ArgumentError), engine.connect() as connection:
        connection.execute("SELECT 1")  # type: ignore[call-overload]


# SQLite


def test_a_file_that_another_process_writes_to_is_transient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "SQLITE_LOCK_TIMEOUT_SECONDS", 1)
    file = tmp_path / "batch.sqlite"
    engine = engine_for(SQLiteSettings(file))
    initialize_database(engine, ITEMS)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        with pytest.raises(DatabaseError) as fault, engine.begin():
            pytest.fail("another process writes")
        assert time.monotonic() - start >= 0.9
        with engine_module.snapshot(engine) as reader:
            assert reader.exec_driver_sql("SELECT COUNT(*) FROM items").scalar() == 0
        other.execute("COMMIT")
    sentence = f"SQLite file {file} has been written to by another process for more than 1 seconds "
    assert transient(fault) == f"{sentence}(database is locked). {LATER}"
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM items")


def test_a_folder_that_cannot_be_made_stays(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseError) as fault:
        engine_for(SQLiteSettings(tmp_path / "file" / "home" / "batch.sqlite"))
    assert "batch.sqlite cannot be opened (" in shut_out(fault)
    assert shut_out(fault).endswith("make its folder writable, or set BATCH_ASSETS_HOME to another one.")


def test_a_file_that_cannot_be_opened_stays(tmp_path: Path) -> None:
    (tmp_path / "batch.sqlite").mkdir()
    with pytest.raises(DatabaseError) as fault:
        engine_for(SQLiteSettings(tmp_path / "batch.sqlite")).connect()
    assert "batch.sqlite cannot be opened (unable to open database file)" in shut_out(fault)


def test_a_file_of_another_kind_stays(tmp_path: Path) -> None:
    file = tmp_path / "batch.sqlite"
    file.write_text("no database, and long enough to be none. " * 100)
    with pytest.raises(DatabaseError) as fault:
        engine_for(SQLiteSettings(file)).connect()
    assert shut_out(fault) == (
        f"SQLite file {file} is something else (file is not a database): move it away, or set BATCH_ASSETS_HOME to "
        "another folder."
    )
    assert file.read_text().startswith("no database")


def test_the_driver_does_not_hold_what_it_was_not_given(numbers: sa.Engine) -> None:
    with pytest.raises(DatabaseError) as fault, numbers.begin() as connection:
        connection.execute(sa.text("INSERT INTO numbers (id, nothing) VALUES (1, :text)"), {"text": "tiramisu"})
    assert isinstance(fault.value.__cause__, pymysql.err.Error)
    assert "tiramisu" not in str(fault.value)
