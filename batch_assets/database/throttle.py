"""Good manners towards the others who use the server: how fast is written to it, and when not at all.

In the manner of gh-ost: a ceiling, status variables of the server, and how far its replicas are behind. No Dagster
in here.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import sqlalchemy as sa

from batch_assets.database.engine import READER_PATIENCE_SECONDS, engine_for, snapshot
from batch_assets.database.settings import MySQLSettings, database_settings
from batch_assets.errors import DatabaseError, DatabaseUnavailableError, SettingsError
from batch_assets.retries import number

LOOK_SECONDS = 1

_LIMIT = re.compile(r"\s*([A-Za-z]\w*)\s*=\s*(\d+(?:\.\d+)?)\s*")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
# An address of IPv6 stands in brackets.
_REPLICA = re.compile(r"\s*(?:\[([\da-fA-F:.]+)\]|([^\s\[\]:/@]+))(?::(\d{1,5}))?\s*")
_RIGHT_IS_MISSING = 1227


@dataclass(frozen=True)
class ThrottleSettings:
    """What the others on the server are to be spared.

    Args:
        max_rows_per_second: Not more rows than these are written in a second; None for no ceiling.
        max_load: Status variables of the server, and for each the value above which writing pauses.
        replicas: The replicas that may not be too far behind, reached as the server itself is.
        max_lag_seconds: How far behind a replica may be.
        max_pause_seconds: After a pause of this length the step fails, to be tried again.
    """

    max_rows_per_second: int | None = None
    max_load: tuple[tuple[str, float], ...] = ()
    replicas: tuple[MySQLSettings, ...] = ()
    max_lag_seconds: float = 5.0
    max_pause_seconds: float = 1800.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Reads the variables.

        Raises:
            SettingsError: One has a value that cannot be used, or there is no server for it.
        """
        ceiling = "BATCH_MAX_ROWS_PER_SECOND"
        return cls(
            max_rows_per_second=int(number(environment, ceiling, 1, 1)) if environment.get(ceiling) else None,
            max_load=_limits(environment),
            replicas=_replicas(environment),
            max_lag_seconds=number(environment, "BATCH_MAX_LAG_SECONDS", 0, cls.max_lag_seconds, whole=False),
            max_pause_seconds=_pause(environment, cls.max_pause_seconds),
        )


class Throttle:
    """Has those who write to a database wait, so that its server and the replicas can do their other work.

    Args:
        engine: The database; a server's status is asked over connections of its own from here. An SQLite file has
            neither status nor replicas: only the ceiling counts there.
        settings: What is to be spared.
        tell: Is told when a pause begins, and why, and when it ends.
    """

    def __init__(self, engine: sa.Engine, settings: ThrottleSettings, tell: Callable[[str], None]) -> None:
        self._engine = engine
        self._settings = settings
        self._tell = tell
        on_server = engine.dialect.name != "sqlite"
        self._looks = on_server and bool(settings.max_load or settings.replicas)
        self._free_at = self._look_at = time.monotonic()
        self._paused = 0.0

    @property
    def paused_seconds(self) -> float:
        """How long writing has waited so far, for the ceiling or in pauses."""
        return self._paused

    def before_write(self, rows: int) -> None:
        """Waits until a transaction may begin that writes so many rows.

        The next one begins when the time of this one's rows is over. Time in which nothing was written is not made up
        for.

        Raises:
            SettingsError: There is no such status variable, or what is named as a replica is none.
            DatabaseError: The account may not ask a replica.
            DatabaseUnavailableError: The pause took too long, or the server does not answer.
        """
        ceiling = self._settings.max_rows_per_second
        if not (ceiling or self._looks):
            return
        wait = self._free_at - time.monotonic()
        if wait > 0:
            time.sleep(wait)
            self._paused += wait
        if self._looks and time.monotonic() >= self._look_at:
            self._wait_for_the_others()
        if ceiling:
            self._free_at = time.monotonic() + rows / ceiling

    def _wait_for_the_others(self) -> None:
        seen = self._look()
        if seen is None:
            return
        self._tell(f"Writing pauses: {seen}.")
        start = time.monotonic()
        try:
            while seen is not None:
                if time.monotonic() - start >= self._settings.max_pause_seconds:
                    raise DatabaseUnavailableError(
                        f"Writing has paused for {self._settings.max_pause_seconds:g} seconds, and still {seen}. What "
                        "was committed stays; the same run may succeed later. To wait longer, set "
                        "BATCH_MAX_PAUSE_SECONDS."
                    )
                time.sleep(LOOK_SECONDS)
                seen = self._look()
        finally:
            pause = time.monotonic() - start
            self._paused += pause
        self._tell(f"Writing goes on after a pause of {pause:.1f} seconds.")

    def _look(self) -> str | None:
        """Returns what is too much, in half a sentence, or None."""
        # At all of it: what is set wrong is to be found at once, and not when something else has passed.
        seen = [_load_seen(self._engine, self._settings.max_load)] if self._settings.max_load else []
        seen += [_lag_seen(replica, self._settings.max_lag_seconds) for replica in self._settings.replicas]
        self._look_at = time.monotonic() + LOOK_SECONDS
        return next((each for each in seen if each), None)


def _load_seen(engine: sa.Engine, max_load: tuple[tuple[str, float], ...]) -> str | None:
    statement = sa.text("SHOW GLOBAL STATUS WHERE Variable_name IN :names").bindparams(
        sa.bindparam("names", expanding=True)
    )
    with snapshot(engine) as connection:
        rows = connection.execute(statement, {"names": [name for name, _ in max_load]})
        status = {str(name).lower(): str(value) for name, value in rows}
    unknown = [name for name, _ in max_load if not _NUMBER.fullmatch(status.get(name.lower(), ""))]
    if unknown:
        raise SettingsError(
            f"BATCH_MAX_LOAD names {', '.join(unknown)}, for which {engine.url.host} has no number: name status "
            "variables that SHOW GLOBAL STATUS lists with one, for example Threads_running. Nothing was written."
        )
    for name, limit in max_load:
        value = status[name.lower()]
        if float(value) > limit:
            return f"{name} is {value}, more than {limit:g} (BATCH_MAX_LOAD)"
    return None


def _lag_seen(replica: MySQLSettings, max_lag_seconds: float) -> str | None:
    address = f"{replica.server}:{replica.port}"
    try:
        lag = _lag(replica)
    except DatabaseUnavailableError as error:
        return f"the replica {address} does not answer ({error})"
    if isinstance(lag, str):
        return f"the replica {address} does not replicate ({lag})"
    if lag > max_lag_seconds:
        return f"the replica {address} is {lag} seconds behind, more than {max_lag_seconds:g} (BATCH_MAX_LAG_SECONDS)"
    return None


def _lag(replica: MySQLSettings) -> int | str:
    """Returns the seconds that a replica is behind, or why it does not replicate."""
    address = f"{replica.server}:{replica.port}"
    with snapshot(engine_for(replica)) as connection:
        mariadb = getattr(connection.dialect, "is_mariadb", False)
        try:
            # Of all sources that it has: MariaDB tells by its usual statement of the one without a name only.
            rows = connection.exec_driver_sql("SHOW ALL SLAVES STATUS" if mariadb else "SHOW REPLICA STATUS")
            sources = [dict(row) for row in rows.mappings()]
        except DatabaseError as error:
            if not error.__cause__ or error.__cause__.args[:1] != (_RIGHT_IS_MISSING,):
                raise
            raise DatabaseError(
                f"User {replica.user!r} may not ask the replica {address} how far it is behind: GRANT "
                f"{'REPLICA MONITOR' if mariadb else 'REPLICATION CLIENT'} ON *.* to it there, or unset BATCH_REPLICAS."
            ) from error
    if not sources:
        raise SettingsError(
            f"BATCH_REPLICAS names {address}, which is no replica (SHOW REPLICA STATUS says nothing there): name the "
            "replicas of the server, or leave it out."
        )
    lags = [source["Seconds_Behind_Master" if mariadb else "Seconds_Behind_Source"] for source in sources]
    if None in lags:
        stopped = sources[lags.index(None)]
        return stopped["Last_IO_Error"] or stopped["Last_SQL_Error"] or "it was stopped"
    return max(map(int, lags))


def _pause(environment: Mapping[str, str], default: float) -> float:
    pause = number(environment, "BATCH_MAX_PAUSE_SECONDS", 0, default, whole=False)
    if pause > READER_PATIENCE_SECONDS:
        raise SettingsError(
            f"BATCH_MAX_PAUSE_SECONDS is {environment['BATCH_MAX_PAUSE_SECONDS']!r}: set it to "
            f"{READER_PATIENCE_SECONDS} or less, since the server ends the connection by which items are read then."
        )
    return pause


def _limits(environment: Mapping[str, str]) -> tuple[tuple[str, float], ...]:
    text = environment.get("BATCH_MAX_LOAD") or ""
    if not text:
        return ()
    _server_for(environment, "BATCH_MAX_LOAD")
    limits = [_LIMIT.fullmatch(part) for part in text.split(",")]
    if None in limits:
        raise SettingsError(
            f"BATCH_MAX_LOAD is {text!r}: set it to status variables with the value above which writing pauses, for "
            "example Threads_running=25,Threads_connected=800."
        )
    return tuple((limit[1], float(limit[2])) for limit in limits if limit)


def _replicas(environment: Mapping[str, str]) -> tuple[MySQLSettings, ...]:
    text = environment.get("BATCH_REPLICAS") or ""
    if not text:
        return ()
    server = _server_for(environment, "BATCH_REPLICAS")
    found = [_REPLICA.fullmatch(part) for part in text.split(",")]
    replicas = [(match[1] or match[2], int(match[3] or 3306)) for match in found if match]
    if None in found or not all(0 < port < 65536 for _, port in replicas):
        raise SettingsError(
            f"BATCH_REPLICAS is {text!r}: set it to the replicas as host:port, with commas between them, for example "
            "replica1:3306,replica2:3306."
        )
    return tuple(replace(server, server=host, port=port) for host, port in replicas)


def _server_for(environment: Mapping[str, str], name: str) -> MySQLSettings:
    settings = database_settings(environment)
    if not isinstance(settings, MySQLSettings):
        raise SettingsError(
            f"{name} is {environment[name]!r}, but the database is the {settings}, which has neither load nor "
            f"replicas: unset {name}, or set MYSQL_SERVER."
        )
    return settings
