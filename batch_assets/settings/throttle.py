"""What the others on the server are to be spared, as the environment says it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from batch_assets.errors import RunTagError, SettingsError
from batch_assets.settings.database import READER_PATIENCE_SECONDS, MySQLSettings, database_settings
from batch_assets.settings.environment import number

# What the tag batch_assets/pace of a run may be.
FULL_SPEED = "full"

_LIMIT = re.compile(r"\s*([A-Za-z]\w*)\s*=\s*(\d+(?:\.\d+)?)\s*")
# An address of IPv6 stands in brackets.
_REPLICA = re.compile(r"\s*(?:\[([\da-fA-F:.]+)\]|([^\s\[\]:/@]+))(?::(\d{1,5}))?\s*")


@dataclass(frozen=True)
class ThrottleSettings:
    """What the others on the server are to be spared.

    Args:
        max_rows_per_second: Not more rows than these are written in a second; None for no ceiling.
        max_load: Status variables of the server, and for each the value above which writing pauses.
        replicas: The replicas that may not be too far behind, reached as the server itself is.
        max_lag_seconds: How far behind a replica may be.
        max_slowdown: A statement of the service may take so many times as long beside a run; None: a run writes as fast
            as it can.
        max_pause_seconds: After a pause of this length the step fails, to be tried again.
    """

    max_rows_per_second: int | None = None
    max_load: tuple[tuple[str, float], ...] = ()
    replicas: tuple[MySQLSettings, ...] = ()
    max_lag_seconds: float = 5.0
    max_pause_seconds: float = 1800.0
    max_slowdown: float | None = None

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
            max_slowdown=_max_slowdown(environment),
        )

    def of_run(self, pace: str | None) -> Self:
        """Returns what holds for a run.

        Args:
            pace: The tag of the run that says how it writes; None if it has none.

        Raises:
            RunTagError: It says something else than that it writes at full speed.
        """
        if pace not in {None, FULL_SPEED}:
            raise RunTagError(
                f"The tag batch_assets/pace of this run is {pace!r}: remove it, or set it to {FULL_SPEED}."
            )
        return replace(self, max_slowdown=None) if pace else self


def _max_slowdown(environment: Mapping[str, str]) -> float | None:
    name = "BATCH_MAX_SLOWDOWN"
    if not environment.get(name):
        return None
    _server_for(environment, name)
    return number(environment, name, 1, 1, whole=False)


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
