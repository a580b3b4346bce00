"""The engine: one for each database and process, with every session alike and every fault in a sentence."""

import sqlite3
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pymysql
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

from batch_assets.database.connection.json_lists import SQLITE_FUNCTION, json_list
from batch_assets.database.connection.statements import checksum
from batch_assets.errors import (
    DatabaseAccessError,
    DatabaseError,
    DatabaseUnavailableError,
    DuplicateKeyError,
    SettingsError,
)
from batch_assets.settings.database import (
    READER_PATIENCE_SECONDS,
    MySQLSettings,
    SQLiteSettings,
    TLSSettings,
)

# A statement that has not answered by then waits for a server that is gone without saying so.
ANSWER_TIMEOUT_SECONDS = 3600
# What is more the server cuts off a value of GROUP_CONCAT. By default it hands over 16 MB (MariaDB) or 64 MB (MySQL).
PACKED_BYTES = 4_000_000
SQLITE_LOCK_TIMEOUT_SECONDS = 60

_SESSION = (
    # TIMESTAMP columns are converted by the session's zone; a server that is not strict would store
    # something else than it was given; without ANSI_QUOTES a double quote is a string.
    "SET SESSION time_zone = '+00:00', "
    "sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', "
    f"net_write_timeout = {READER_PATIENCE_SECONDS}, group_concat_max_len = {PACKED_BYTES}"
    # From 11.6.2 on MariaDB refuses to lock a row that has changed since the transaction's first read. We lock rows to
    # see what became of them. https://mariadb.com/kb/en/innodb-system-variables/#innodb_snapshot_isolation
    " /*M!110602 , innodb_snapshot_isolation = OFF */"
)

_URL_FORM = "write it as mysql://user:password@server:3306/database or sqlite:///path/to/file."

# https://dev.mysql.com/doc/mysql-errors/9.7/en/server-error-reference.html and client-error-reference.html
_UNAVAILABLE = {
    1020: "found a row that another transaction had changed",
    1040: "has too many connections",
    1053: "is shutting down",
    1158: "could not read from the connection",
    1159: "waited too long for the connection",
    1160: "could not write to the connection",
    1161: "waited too long for the connection",
    1203: "has too many connections of this user",
    1226: "allows no more of this user at the moment",
    1205: "waited too long for a lock that another transaction holds",
    1213: "ended the transaction because of a deadlock",
    1290: "takes no writes at the moment (read only, as after a failover)",
    1836: "takes no writes at the moment (read only, as after a failover)",
    1317: "had the statement interrupted",
    1412: "has had a table changed since the transaction began",
    1927: "had the connection killed",
    1969: "ended the statement because it took too long",
    # Both are also what becomes of a statement that is too large, if the server closes before the driver has read its
    # answer.
    2006: "has closed the connection (or takes no statement as large as that: see its max_allowed_packet)",
    2013: "was lost during the statement (or takes no statement as large as that: see its max_allowed_packet)",
    2055: "was lost during the statement",
    3024: "ended the statement because it took too long",
    3169: "had the session killed",
    4031: "has closed the connection for want of traffic",
}


@cache
def engine_for(
    settings: MySQLSettings | SQLiteSettings,
    connections: int | None = None,
    answer_seconds: int = ANSWER_TIMEOUT_SECONDS,
) -> sa.Engine:
    """Returns the engine of a database, the same for the whole process.

    Its sessions are in UTC and strict. Whatever the driver raises becomes a `DatabaseError`, or a
    `DatabaseUnavailableError` where the same statement may succeed later.

    Args:
        settings: The database.
        connections: How many it opens at the most, and keeps; as SQLAlchemy has it by default where that is None.
        answer_seconds: A statement that has not been answered by then is given up.
    """
    pool = {} if connections is None else {"pool_size": connections, "max_overflow": 0}
    engine = _mysql(settings, answer_seconds, pool) if isinstance(settings, MySQLSettings) else _sqlite(settings, pool)
    event.listen(engine, "handle_error", lambda context: _raise_sentence(settings, context))
    return engine


@cache
def engine_from_url(url: str) -> sa.Engine:
    """Returns the engine of a database given as an SQLAlchemy URL.

    Raises:
        SettingsError: It is not the URL of a MySQL, MariaDB or SQLite database.
    """
    try:
        parts = sa.make_url(url)
    except sa.exc.ArgumentError:
        # Without the text, which may hold a password.
        raise SettingsError(f"The URL of the IO manager's database cannot be read: {_URL_FORM}") from None
    if parts.get_backend_name() == "sqlite" and parts.database:
        return engine_for(SQLiteSettings(Path(parts.database)))
    if parts.get_backend_name() not in ("mysql", "mariadb") or not parts.host or not parts.database:
        raise SettingsError(f"The URL of the IO manager's database is {parts!r}: {_URL_FORM}")
    return engine_for(
        MySQLSettings(parts.host, parts.port or 3306, parts.username or "", str(parts.password or ""), parts.database)
    )


def snapshot(engine: sa.Engine) -> sa.Connection:
    """Returns a connection for reading: all its statements see the database as it was at the first."""
    return engine.connect().execution_options(reads_only=True)


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Begins a transaction that locks the rows it writes, and neither the gaps nor the other rows between them."""
    with engine.begin() as connection:
        if engine.dialect.name != "sqlite":
            # For this transaction alone. What is set for the connection has to be set back, and that fails where the
            # connection is lost after its commit.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        yield connection


@contextmanager
def replacing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Begins a transaction that deletes rows of our tables and writes others with the same keys in their place.

    Raises:
        DatabaseUnavailableError: Another run has done so at the same time. Both found nothing to delete, neither waited
            for the other one, and the server refused the row of the second.
    """
    try:
        with writing(engine) as connection:
            yield connection
    except DuplicateKeyError as error:
        raise DatabaseUnavailableError(
            "Another run has stored rows of the same hour or model at the same time: nothing of this one's was stored. "
            "The same run may succeed when the other one is done."
        ) from error


def _mysql(settings: MySQLSettings, answer_seconds: int, pool: Mapping[str, int]) -> sa.Engine:
    url = sa.URL.create(
        "mysql+pymysql",
        settings.user,
        settings.password,
        settings.server,
        settings.port,
        settings.database,
        {"charset": "utf8mb4"},
    )
    arguments: dict[str, Any] = {
        "connect_timeout": 10,
        "read_timeout": answer_seconds,
        "write_timeout": answer_seconds,
        # Not by an event: SQLAlchemy would have asked for the server's sql_mode by then, and quote names as it says.
        "init_command": _SESSION,
    }
    if settings.tls.mode == "DISABLED":
        arguments["ssl_disabled"] = True
    elif settings.tls.mode != "PREFERRED":
        arguments["ssl"] = settings.tls.context()
    engine = sa.create_engine(
        url,
        connect_args=arguments,
        pool_pre_ping=True,
        pool_reset_on_return=None,
        hide_parameters=True,
        isolation_level="REPEATABLE READ",
        **pool,
    )

    @event.listens_for(engine, "reset")
    def _(connection: pymysql.connections.Connection, record: ConnectionPoolEntry, state: PoolResetState) -> None:
        # The pool itself would print the traceback of a lost connection, in front of the sentence that says what is so.
        if state.transaction_was_reset:
            return
        try:
            connection.rollback()
        except pymysql.err.Error as error:
            record.invalidate(error)

    @event.listens_for(engine, "do_connect")
    def _(_dialect: object, _record: object, _arguments: object, parameters: dict[str, Any]) -> _Connection:
        return _Connection(**parameters)

    @event.listens_for(engine, "set_connection_execution_options")
    def _(_connection: sa.Connection, options: dict[str, Any]) -> None:
        # Looking at a table sets it for all statements that follow on the connection, whose faults would lose their
        # sentences.
        options.pop("skip_user_error_events", None)

    return engine


class _Connection(pymysql.connections.Connection):
    """A connection that does not read the authorities of the system where it trusts whatever certificate it is shown.

    PyMySQL does for each connection, which takes longer than all the rest of opening it.
    """

    def _create_ssl_ctx(self, wanted: ssl.SSLContext | dict[str, Any]) -> ssl.SSLContext:
        return wanted if isinstance(wanted, ssl.SSLContext) else TLSSettings().context()


def _sqlite(settings: SQLiteSettings, pool: Mapping[str, int]) -> sa.Engine:
    try:
        settings.filepath.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable_folder(settings, str(error)) from error
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(settings.filepath)),
        connect_args={"timeout": SQLITE_LOCK_TIMEOUT_SECONDS, "check_same_thread": False},
        hide_parameters=True,
        **pool,
    )

    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: object) -> None:
        # The driver would begin transactions late and not for DDL: SQLAlchemy begins them itself, below.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for each other
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.create_function("CRC32", 1, checksum, deterministic=True)  # which MySQL has
        connection.create_function(SQLITE_FUNCTION, -1, json_list, deterministic=True)

    @event.listens_for(engine, "begin")
    def _(connection: sa.Connection) -> None:
        # A transaction that reads first and writes then can fail at once when it has to become a writer;
        # one that is a writer from the start waits for its turn.
        reading = connection.get_execution_options().get("reads_only", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _raise_sentence(settings: MySQLSettings | SQLiteSettings, context: ExceptionContext) -> None:
    error = context.original_exception
    # At a failed ping the pool opens another connection; what is no fault of the database speaks for itself.
    if context.is_pre_ping or not isinstance(error, (pymysql.err.Error, sqlite3.Error)):
        return
    if (context.statement or "").startswith(("DESCRIBE ", "SHOW CREATE TABLE ")) and error.args[0] == 1146:
        return  # SQLAlchemy's own question whether a table is there
    if isinstance(settings, SQLiteSettings):
        raise _sqlite_fault(settings, error) from error
    raise _mysql_fault(settings, error) from error


def _mysql_fault(settings: MySQLSettings, error: BaseException) -> DatabaseError:
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    reason = str(error.args[-1]) if error.args else str(error)
    if _is_tls_fault(number, error):
        return DatabaseAccessError(
            f"No trusted connection to {settings.server}:{settings.port} ({reason}): fix MYSQL_SSL_MODE (now "
            f"{settings.tls.mode}), MYSQL_SSL_CA, MYSQL_SSL_CERT or MYSQL_SSL_KEY."
        )
    if number in (2002, 2003, 2005):
        return DatabaseUnavailableError(
            f"No MySQL server answers at {settings.server}:{settings.port} ({reason}): start it, or fix "
            "MYSQL_SERVER and MYSQL_PORT."
        )
    if number in _UNAVAILABLE or isinstance(error, pymysql.err.InterfaceError):
        what = _UNAVAILABLE.get(number, "has closed the connection")
        return DatabaseUnavailableError(
            f"The server of {settings} {what} ({number}: {reason}). What was committed stays; the same run may "
            "succeed later."
        )
    access = {
        1044: f"User {settings.user!r} may not use {settings} ({reason}): grant it, or fix MYSQL_DATABASE.",
        1045: f"The MySQL server at {settings.server}:{settings.port} refuses user {settings.user!r} "
        f"({reason}): fix MYSQL_USER or MYSQL_PASSWORD, or set MYSQL_SSL_MODE, MYSQL_SSL_CERT and "
        "MYSQL_SSL_KEY if it demands encryption or a certificate.",
        1049: f"There is no {settings}: create it, or fix MYSQL_DATABASE.",
        1130: f"The MySQL server at {settings.server}:{settings.port} takes no connections from this machine "
        f"({reason}): allow it there.",
        1698: f"The MySQL server at {settings.server}:{settings.port} refuses user {settings.user!r} "
        f"({reason}): fix MYSQL_USER or MYSQL_PASSWORD.",
    }
    if number in access:
        return DatabaseAccessError(access[number])
    fault = DuplicateKeyError if number == 1062 else DatabaseError
    return fault(
        {
            1054: f"A column is missing in {settings} ({reason}): run `batch-assets init-db`, which adds it "
            "or says what it must look like.",
            1142: f"User {settings.user!r} lacks a right in {settings} ({reason}): grant it.",
            1143: f"User {settings.user!r} lacks a right in {settings} ({reason}): grant it.",
            1146: f"A table is missing in {settings} ({reason}): run `batch-assets init-db`.",
            1153: f"{settings} takes no statement as large as that ({reason}): raise max_allowed_packet on the "
            "server. Nothing of it was stored.",
        }.get(number, f"{settings} refused a statement ({number}: {reason}). Nothing of it was stored.")
    )


def _is_tls_fault(number: int, error: BaseException) -> bool:
    # 2026: the server offers no encryption; 3159: it demands it (MariaDB refuses the account then, 1045).
    cause = getattr(error, "original_exception", None)
    # The end of a connection is no matter of trust: a server that restarts ends it in the middle of the greeting.
    return number in (2026, 3159) or (isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError))


def _sqlite_fault(settings: SQLiteSettings, error: BaseException) -> DatabaseError:
    reason = str(error)
    if "locked" in reason or "busy" in reason:
        return DatabaseUnavailableError(
            f"{settings} has been written to by another process for more than {SQLITE_LOCK_TIMEOUT_SECONDS} "
            f"seconds ({reason}). What was committed stays; the same run may succeed later."
        )
    if "no such table" in reason:
        return DatabaseError(f"A table is missing in {settings} ({reason}): run `batch-assets init-db`.")
    if "no such column" in reason or "has no column named" in reason:
        return DatabaseError(
            f"A column is missing in {settings} ({reason}): run `batch-assets init-db`, which adds it or says what it "
            "must look like."
        )
    if "unable to open" in reason:
        return _unusable_folder(settings, reason)
    if "not a database" in reason:
        return DatabaseAccessError(
            f"{settings} is something else ({reason}): move it away, or set BATCH_ASSETS_HOME to another folder."
        )
    fault = DuplicateKeyError if "UNIQUE constraint failed" in reason else DatabaseError
    return fault(f"{settings} refused a statement ({reason}). Nothing of it was stored.")


def _unusable_folder(settings: SQLiteSettings, reason: str) -> DatabaseAccessError:
    return DatabaseAccessError(
        f"{settings} cannot be opened ({reason}): make its folder writable, or set BATCH_ASSETS_HOME to another one."
    )
