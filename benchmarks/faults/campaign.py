"""A server, the values to choose from, and what has happened so far."""

import collections
import datetime
import json
import os
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.schema.setup import initialize_database
from batch_assets.iris.training import iris_items
from batch_assets.settings.database import database_settings
from batch_assets_tests.support.engines import ITEMS
from batch_assets_tests.support.pipeline import iris_probabilities
from batch_assets_tests.support.servers import PrivateServer, Rows
from benchmarks.faults.plan import Plan
from benchmarks.faults.service import in_one_form


@dataclass
class Tally:
    """What has happened so far."""

    faults: collections.Counter[str] = field(default_factory=collections.Counter)
    missed: collections.Counter[str] = field(default_factory=collections.Counter)
    where: collections.Counter[str] = field(default_factory=collections.Counter)
    outcomes: collections.defaultdict[str, collections.Counter[str]] = field(
        default_factory=lambda: collections.defaultdict(collections.Counter)
    )
    runs: collections.Counter[str] = field(default_factory=collections.Counter)
    modes: collections.Counter[str] = field(default_factory=collections.Counter)
    numbers: collections.Counter[str] = field(default_factory=collections.Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)

    def document(self, seconds: float, server: str, seed: int) -> dict[str, Any]:
        """Returns all of it for JSON."""
        return {
            "server": server,
            "seed": seed,
            "seconds": round(seconds, 1),
            "faults": dict(self.faults),
            "faults_in_all": self.faults.total(),
            "missed": dict(self.missed),
            "where": dict(self.where.most_common()),
            "runs": dict(self.runs),
            "runs_by_fault": {kind: dict(counts) for kind, counts in self.outcomes.items()},
            "rounds_by_mode": dict(self.modes),
            **self.numbers,
            "violations": self.violations,
        }


class Campaign:
    """A server, the values to choose from, and what has happened so far.

    Args:
        private: The server, started.
        database: The name of an empty database on it.
        home: An empty folder, for Dagster and for what the workers print.
        seed: Decides the rounds.
    """

    def __init__(self, private: PrivateServer, database: str, home: Path, seed: int) -> None:
        self.private, self.database, self.home, self.seed = private, database, home, seed
        self.tally = Tally()
        self.good = [json.dumps(values) for values in iris_items(200, seed=seed)]
        self.expected = {
            in_one_form(text): row for text, row in zip(self.good, iris_probabilities(self.good), strict=True)
        }
        self.usual: dict[str, list[float]] = collections.defaultdict(lambda: [0.3])
        self.fingerprints: dict[Plan, Rows] = {}
        self._watch: pymysql.Connection[Any] | None = None
        self.environment = self._prepare()

    def sql(self, statement: str, *parameters: object) -> Rows:
        """Executes a statement in a transaction of its own, without the package."""
        return self.private.server.execute(statement, *parameters, database=self.database)

    def connect(self) -> "pymysql.Connection[Any]":
        """Returns a connection to keep."""
        server = self.private.server
        return pymysql.connect(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            database=self.database,
            autocommit=True,
        )

    def connections(self) -> list[tuple[int, str | None]]:
        """Returns the workers' connections, and the statements that they execute.

        Over a connection that is kept: statements take milliseconds, and would be over before one is made.
        """
        if self._watch is None or not self._watch.open:
            self._watch = self.connect()
        with self._watch.cursor() as cursor:
            cursor.execute("SHOW FULL PROCESSLIST")
            rows = cursor.fetchall()
        return [(row[0], row[7] if row[4] in ("Query", "Execute") else None) for row in rows if row[1] == "worker"]

    def forget_connection(self) -> None:
        """Closes the connection that is kept, before the server does."""
        if self._watch is not None and self._watch.open:
            self._watch.close()

    def kill(self, what: str, key: int) -> bool:
        """Ends a connection or its statement; False if it is gone already."""
        assert self._watch is not None
        try:
            with self._watch.cursor() as cursor:
                cursor.execute(f"KILL {what} {key}")
        except pymysql.err.MySQLError as error:
            if error.args[0] != 1094:
                raise
            return False
        return True

    def _prepare(self) -> dict[str, str]:
        initialize_database(engine_for(database_settings(self.private.server.environment(self.database))), ITEMS)
        (self.home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        # An account of its own: its connections can be told from ours, and read_only holds for it.
        password = secrets.token_hex(16)
        self.sql("CREATE USER worker@'%%' IDENTIFIED BY %s", password)
        self.sql(f"GRANT ALL ON {self.database}.* TO worker@'%'")
        return {
            **self.private.server.environment(self.database),
            "MYSQL_USER": "worker",
            "MYSQL_PASSWORD": password,
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "BATCH_ASSETS_HOME": str(self.home),
            "BATCH_FIRST_HOUR": os.environ["BATCH_FIRST_HOUR"],
            "BATCH_TRANSIENT_RETRIES": "3",
            "BATCH_TRANSIENT_RETRY_SECONDS": "0.5",
        }

    def report(self, plan: Plan, what: str, ids: Sequence[int] = ()) -> None:
        """Notes a violation, and prints it at once."""
        violation = {"round": plan.number, "seed": self.seed, "mode": plan.mode, "hour": str(plan.start), "what": what}
        violation |= {"ids": sorted(ids)[:50], "count": len(ids)} if ids else {}
        self.tally.violations.append(violation)
        print(f"VIOLATION {json.dumps(violation)}", flush=True)

    def check_earlier_hours(self) -> None:
        """Checks that no round has touched the hour of another."""
        for plan, fingerprint in self.fingerprints.items():
            if fingerprint_of(self.sql, plan) != fingerprint:
                self.report(plan, "the hour has changed after its round")


def fingerprint_of(sql: Callable[..., Rows], plan: Plan) -> Rows:
    """Returns what changes with any item of the hour, or with what has failed in it."""
    end = plan.start + datetime.timedelta(hours=1)
    return sql(
        "SELECT COUNT(*), BIT_XOR(CRC32(CONCAT_WS('|', id, `values`, prediction, created_datetime))),"
        " (SELECT COUNT(*) FROM failed_items WHERE hour = %s) FROM items"
        " WHERE created_datetime >= %s AND created_datetime < %s",
        *(plan.start, plan.start, end),
    )


def first_fault(output: str) -> str:
    """Returns how the first fault that a run tells of begins."""
    found = re.search(r"^(?:dagster\S+: |\S*Error: ).*", output, re.MULTILINE)
    return found[0][:500] if found else output[-500:]
