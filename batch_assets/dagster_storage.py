"""Dagster's storage on MySQL as dagster.yaml names it: connections kept and encrypted as others, no hour overlooked.

A step of a backfill records each of its hours: what an event costs decides what an hour costs.
"""

import ssl
import time
from collections.abc import Mapping
from itertools import takewhile
from typing import Any, Self

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.partition_status_cache import AssetStatusCacheValue
from dagster._serdes import ConfigurableClassData
from dagster_mysql import DagsterMySQLStorage, MySQLEventLogStorage, MySQLRunStorage, MySQLScheduleStorage

from batch_assets.errors import SettingsError
from batch_assets.settings.database import MySQLSettings, TLSSettings, database_settings
from batch_assets.settings.environment import environment, set_default

KEPT_CONNECTIONS = 2
# So many events before the last one may not have been there yet when that one was seen.
LOOKED_AT_AGAIN = 10_000
# So long it may take until all that belongs to the end of a run is there.
SETTLED_SECONDS = 5


class _EventLogStorage(MySQLEventLogStorage):
    """Dagster's event log on MySQL, whose status of partitions comes right, and of which no failed run is overlooked.

    Dagster adds to the status that it has kept what events with a larger id than the last one say. Of runs side by side
    one may commit its event after another has committed one with a larger id: looked at in between, the hour of the
    first would be missing in the UI for ever. Here the last events are looked at again.

    The daemon that starts crashed runs again looks at the end of each run once. Dagster writes the event first and the
    status of the run after it: looked at in between, the run would not be taken for a failed one and never be started
    again. Here that daemon is shown the end of a run, and of those that ended after it, when it is some seconds old.
    """

    def get_logs_for_all_runs_by_log_id(
        self,
        after_cursor: int = -1,
        dagster_event_type: dg.DagsterEventType | set[dg.DagsterEventType] | None = None,
        limit: int | None = None,
    ) -> Mapping[int, dg.EventLogEntry]:
        """Returns what the daemon that starts crashed runs again has not seen, by id."""
        events, now = super().get_logs_for_all_runs_by_log_id(after_cursor, dagster_event_type, limit), time.time()
        # That of a machine whose clock is ahead holds up nobody.
        return dict(takewhile(lambda event: not 0 <= now - event[1].timestamp < SETTLED_SECONDS, events.items()))

    def update_asset_cached_status_data(self, asset_key: dg.AssetKey, cache_values: AssetStatusCacheValue) -> None:
        """Keeps the status of an asset's partitions."""
        seen_for_good = max(0, cache_values.latest_storage_id - LOOKED_AT_AGAIN)
        super().update_asset_cached_status_data(asset_key, cache_values._replace(latest_storage_id=seen_for_good))


class _RunStorage(MySQLRunStorage):
    """Dagster's runs on MySQL, without a look at the columns of the table before each look at the runs.

    A sensor looks at runs four times a tick and more, and each time Dagster asks the server what columns there are.
    """

    _has_run_stats = False

    def has_run_stats_index_cols(self) -> bool:
        """Returns whether runs have columns for their start and end; once they are there, they stay."""
        self._has_run_stats = self._has_run_stats or super().has_run_stats_index_cols()
        return self._has_run_stats


class PooledMySQLStorage(DagsterMySQLStorage):
    """Dagster's storage on MySQL, without a new connection for each statement, and with events that come late.

    Dagster's own opens one for each, two for an event of an asset, everywhere but in the webserver: most of what an
    event costs. This one keeps a few in each process, and looks at one that was kept before it is used, so that a
    server that was restarted is noticed as before. More are opened where several threads need them at once.

    Events that are committed after others with a larger id are seen: by the status of partitions, see above, and by
    the daemon's backfills, for which Dagster has a variable.

    Args:
        mysql_url: The database of Dagster's tables.
        inst_data: How Dagster makes it again in another process.
    """

    def __init__(self, mysql_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        self.mysql_url = mysql_url
        self._inst_data = inst_data
        self._run_storage = _RunStorage(mysql_url)
        self._event_log_storage = _EventLogStorage(mysql_url)
        self._schedule_storage = MySQLScheduleStorage(mysql_url)
        # Not Dagster's own for MySQL, which would make another event log.
        super(DagsterMySQLStorage, self).__init__()  # type: ignore[no-untyped-call]
        set_default("ASSET_BACKFILL_CURSOR_OFFSET", str(LOOKED_AT_AGAIN))
        engine = sa.create_engine(
            mysql_url,
            isolation_level="REPEATABLE READ",
            pool_size=KEPT_CONNECTIONS,
            max_overflow=-1,
            pool_pre_ping=True,
        )
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = engine  # as they do themselves in the webserver

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Returns what dagster.yaml says of it: the database. The server and the account are those of the items."""
        return {"database": dg.StringSource}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Returns the storage that dagster.yaml describes: on the server and with the TLS settings of the environment.

        Raises:
            SettingsError: A variable is missing or has a value that cannot be used.
        """
        settings = database_settings({**environment(), "MYSQL_DATABASE": config_value["database"]})
        if not isinstance(settings, MySQLSettings):
            raise SettingsError(
                f"dagster.yaml keeps Dagster's tables in the MySQL database {config_value['database']!r}, but "
                "MYSQL_SERVER is not set: set it, or set DAGSTER_HOME to the folder of another dagster.yaml."
            )
        url = sa.URL.create(
            "mysql+mysqlconnector",
            settings.user,
            settings.password,
            settings.server,
            settings.port,
            settings.database,
            _tls_options(settings.tls),
        )
        return cls(url.render_as_string(hide_password=False), inst_data)


def _tls_options(tls: TLSSettings) -> dict[str, str]:
    """Returns the settings in the words of Dagster's driver, which knows no REQUIRED: it is PREFERRED there."""
    if tls.mode == "DISABLED":
        return {"ssl_disabled": "true"}
    options: dict[str, str] = {}
    if tls.certificate:
        options |= {"ssl_cert": str(tls.certificate), "ssl_key": str(tls.key or tls.certificate)}
    if tls.mode in ("VERIFY_CA", "VERIFY_IDENTITY"):
        # Not the driver's C extension, which checks no certificate where the server offers no encryption: whoever
        # stands in between would only have to say so.
        authority = tls.certificate_authority or ssl.get_default_verify_paths().cafile
        options |= {"use_pure": "true", "ssl_verify_cert": "true", "ssl_ca": str(authority or "")}
    if tls.mode == "VERIFY_IDENTITY":
        options["ssl_verify_identity"] = "true"
    return options
