"""One writer an hour.

Who holds an hour is decided by a lock that the server, or the operating system for SQLite, takes back when its holder
dies. The row in `hour_locks` says which run it is, and fences off a run that has lost its lock without noticing:
every transaction that writes looks there whether it is still its own.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import sqlalchemy as sa
from filelock import FileLock, Timeout

from batch_assets.database.connection.engine import snapshot
from batch_assets.database.schema.tables import PipelineTables, hour_locks
from batch_assets.errors import DatabaseError, HourBusyError
from batch_assets.hours import Hour, utc_now
from batch_assets.pipeline import ENVIRONMENT_PIPELINE

WAIT_SECONDS = 5
# A holder whose machine is gone says nothing more: the server ends its connection, and with it the lock.
SILENCE_SECONDS = 120
HEARTBEAT_SECONDS = 20

_log = logging.getLogger(__name__)


class HourLock:
    """The right of a run to write the predictions of an hour.

    Args:
        engine: The database.
        tables: Those of the pipeline.
        hour: The hour.
        run_id: The run.
        wait: Whether to wait while another run has it, or to fail.
        on_progress: Is told that it waits, and for whom.
    """

    def __init__(  # noqa: PLR0913 - the hour, who wants it, and what to do while it is held
        self,
        engine: sa.Engine,
        tables: PipelineTables,
        hour: Hour,
        run_id: str,
        *,
        wait: bool,
        on_progress: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._pipeline = tables.pipeline
        self._of_hour = sa.and_(tables.has(hour_locks), hour_locks.c.hour == hour.start)
        self._hour = hour
        self._run_id = run_id
        self._wait = wait
        self._on_progress = on_progress

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Holds the hour.

        Raises:
            HourBusyError: Another run has it, and this one is not to wait.
        """
        with self._file_lock() if self._engine.dialect.name == "sqlite" else self._server_lock():
            with self._engine.begin() as connection:
                # Waits for the last transaction of who held the hour before. Not DELETE and INSERT, which lock gaps.
                connection.execute(
                    sa.text(
                        "REPLACE INTO hour_locks (pipeline, hour, run_id, taken_at) "
                        "VALUES (:pipeline, :hour, :run_id, :taken_at)"
                    ),
                    {
                        "pipeline": self._pipeline,
                        "hour": str(self._hour.start),
                        "run_id": self._run_id,
                        "taken_at": utc_now().strftime("%Y-%m-%d %H:%M:%S"),
                    },
                )
            try:
                yield
            finally:
                self._sign_off()

    def check(self, connection: sa.Connection) -> None:
        """Makes sure, within a transaction that writes, that the hour has not been taken over.

        Who takes it over has to wait until that transaction is done.

        Raises:
            HourBusyError: Another run holds it.
        """
        statement = sa.select(hour_locks.c.run_id).where(self._of_hour)
        holder = connection.execute(statement.with_for_update(read=True)).scalar()
        if holder != self._run_id:
            raise HourBusyError(
                f"This run lost its connection, and with it the hour {self._hour.key}, to "
                f"{f'run {holder}' if holder else 'another run'}: nothing more was written. Let that run end."
            )

    def _sign_off(self) -> None:
        mine = sa.and_(self._of_hour, hour_locks.c.run_id == self._run_id)
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.delete(hour_locks).where(mine))
        except DatabaseError as error:
            # The row only informs; whatever ended the connection is reported by what needed it.
            _log.info("The row of %s in hour_locks stays: %s", self._hour.key, error)

    @contextmanager
    def _server_lock(self) -> Iterator[None]:
        name = server_lock(self._engine, self._pipeline, self._hour)
        # What is asked on it touches no table, so that no transaction begins and holds a view of the database.
        connection = self._engine.connect()
        silent = threading.Event()
        heartbeat = threading.Thread(target=_keep_alive, args=(connection, silent), daemon=True)
        try:
            connection.exec_driver_sql(f"SET SESSION wait_timeout = {SILENCE_SECONDS}")
            self._take(lambda seconds: connection.scalar(sa.select(sa.func.get_lock(name, seconds))) == 1)
            heartbeat.start()
            yield
        finally:
            silent.set()
            if heartbeat.is_alive():
                heartbeat.join(HEARTBEAT_SECONDS)
            if heartbeat.is_alive() or not _gave_back(connection, name):
                # The lock ends with its connection, which is not for the pool.
                connection.invalidate()
            connection.close()

    @contextmanager
    def _file_lock(self) -> Iterator[None]:
        folder = Path(f"{self._engine.url.database}.locks")
        folder.mkdir(exist_ok=True)
        of_pipeline = "" if self._pipeline == ENVIRONMENT_PIPELINE else f"{self._pipeline}."
        lock = FileLock(folder / f"{of_pipeline}{self._hour.key.replace(':', '-')}.lock")
        self._take(lambda seconds: _took(lock, seconds))
        try:
            yield
        finally:
            lock.release()

    def _take(self, take: Callable[[float], bool]) -> None:
        if take(0):
            return
        holder = self._holder()
        if not self._wait:
            raise HourBusyError(
                f"The hour {self._hour.key} is held by {holder}: wait for that run or end it, or set "
                "BATCH_BUSY_HOUR=wait."
            )
        self._on_progress(f"Waiting for {holder}, which holds the hour {self._hour.key}.")
        while not take(WAIT_SECONDS):
            pass

    def _holder(self) -> str:
        statement = sa.select(hour_locks.c.run_id, hour_locks.c.taken_at).where(self._of_hour)
        with snapshot(self._engine) as connection:
            row = connection.execute(statement).one_or_none()
        return f"run {row.run_id} since {row.taken_at:%Y-%m-%d %H:%M:%S} UTC" if row else "another run"


def server_lock(engine: sa.Engine, pipeline: str, hour: Hour) -> str:
    """Returns the name of the lock (GET_LOCK) of an hour: names are the server's, not the database's."""
    place = engine.url.database or ""
    # Runs of the version before pipelines had names must exclude ours, and be excluded.
    if pipeline != ENVIRONMENT_PIPELINE:
        place += f"/{pipeline}"
    return f"batch_assets.{sha256(place.encode()).hexdigest()[:24]}.{hour.key}"


def _gave_back(connection: sa.Connection, name: str) -> bool:
    """Gives a lock back and makes its connection fit for others; returns whether that was possible."""
    if connection.invalidated:
        return False
    try:
        connection.execute(sa.select(sa.func.release_lock(name)))
        connection.exec_driver_sql("SET SESSION wait_timeout = DEFAULT")
    except DatabaseError as error:
        _log.info("The connection that held an hour's lock was lost: %s", error)
        return False
    return True


def _keep_alive(connection: sa.Connection, silent: threading.Event) -> None:
    while not silent.wait(HEARTBEAT_SECONDS):
        try:
            connection.exec_driver_sql("SELECT 1")
        except DatabaseError as error:
            # Nobody needs to be stopped for it: `check` is what protects the hour.
            _log.info("The connection that holds an hour's lock was lost: %s", error)
            return


def _took(lock: FileLock, seconds: float) -> bool:
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    return True
