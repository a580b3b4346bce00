"""Good manners towards the others who use the server: how fast is written to it, and when not at all.

In the manner of gh-ost: a ceiling, status variables of the server, and how far its replicas are behind. No Dagster
in here.
"""

import re
import time
from collections.abc import Callable

import sqlalchemy as sa

from batch_assets.database.connection.engine import engine_for, snapshot
from batch_assets.errors import DatabaseError, DatabaseUnavailableError, SettingsError
from batch_assets.settings.database import MySQLSettings
from batch_assets.settings.throttle import ThrottleSettings

LOOK_SECONDS = 1

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_RIGHT_IS_MISSING = 1227


class Throttle:
    """Has those who write to a database wait, so that its server and the replicas can do their other work.

    Args:
        engine: The database; a server's status is asked over connections of its own from here. An SQLite file has
            neither status nor replicas: only the ceiling counts there.
        settings: What is to be spared.
        on_progress: Is told when a pause begins, and why, and when it ends.
    """

    def __init__(self, engine: sa.Engine, settings: ThrottleSettings, on_progress: Callable[[str], None]) -> None:
        self._engine = engine
        self._settings = settings
        self._on_progress = on_progress
        on_server = engine.dialect.name != "sqlite"
        self._looks = on_server and bool(settings.max_load or settings.replicas)
        self._free_at = self._look_at = time.monotonic()
        self._paused = 0.0

    @property
    def paused_seconds(self) -> float:
        """How long writing has waited so far, for the ceiling or in pauses."""
        return self._paused

    @property
    def max_slowdown(self) -> float | None:
        """How many times as long a statement of the service may take beside a run; None if that is not looked at."""
        return self._settings.max_slowdown

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
        self._on_progress(f"Writing pauses: {seen}.")
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
        self._on_progress(f"Writing goes on after a pause of {pause:.1f} seconds.")

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
