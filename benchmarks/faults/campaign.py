"""A server, the values to choose from, and what has happened so far."""

import collections
import datetime
import json
import os
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pymysql

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.schema.setup import initialize_database
from batch_assets.database.schema.tables import item_table
from batch_assets.iris.training import iris_items
from batch_assets.settings.database import database_settings
from batch_assets_tests.support.engines import ITEMS
from batch_assets_tests.support.servers import PrivateServer, Rows
from benchmarks.faults.pipelines import ScoredPipeline, pipeline_of_environment, two_pipelines
from benchmarks.faults.plan import OF_ALL, Plan
from benchmarks.faults.service import in_one_form

ALL = "all"
_DEADLOCK = 1213


def _counters() -> collections.defaultdict[str, collections.Counter[str]]:
    return collections.defaultdict(collections.Counter)


@dataclass
class Tally:
    """What has happened so far."""

    faults: collections.Counter[str] = field(default_factory=collections.Counter)
    faults_by_pipeline: collections.defaultdict[str, collections.Counter[str]] = field(default_factory=_counters)
    missed: collections.Counter[str] = field(default_factory=collections.Counter)
    where: collections.Counter[str] = field(default_factory=collections.Counter)
    beside: collections.Counter[str] = field(default_factory=collections.Counter)
    outcomes: collections.defaultdict[str, collections.Counter[str]] = field(default_factory=_counters)
    runs: collections.Counter[str] = field(default_factory=collections.Counter)
    runs_by_pipeline: collections.defaultdict[str, collections.Counter[str]] = field(default_factory=_counters)
    modes: collections.Counter[str] = field(default_factory=collections.Counter)
    numbers: collections.Counter[str] = field(default_factory=collections.Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)

    def note_hit(self, kind: str, pipeline: str, where: str, beside: Sequence[str]) -> None:
        """Notes a fault that has hit.

        Args:
            kind: Its kind.
            pipeline: That by whose run it went.
            where: Where this run was.
            beside: In which step each run of another pipeline was that was alive.
        """
        self.faults[kind] += 1
        self.faults_by_pipeline[ALL if kind in OF_ALL else pipeline][kind] += 1
        self.where[where] += 1
        self.beside.update(beside)

    def note_end(self, outcome: str, pipeline: str, hits: Collection[str]) -> None:
        """Notes how a run of a pipeline has ended, and the kinds of the faults that have hit it."""
        self.runs[outcome] += 1
        self.runs_by_pipeline[pipeline][outcome] += 1
        for kind in set(hits):
            self.outcomes[kind][outcome] += 1

    def document(self, seconds: float, server: str, seed: int) -> dict[str, Any]:
        """Returns all of it for JSON."""
        return {
            "server": server,
            "seed": seed,
            "seconds": round(seconds, 1),
            "faults": dict(self.faults),
            "faults_by_pipeline": {name: dict(counts) for name, counts in self.faults_by_pipeline.items()},
            "faults_in_all": self.faults.total(),
            "missed": dict(self.missed),
            "where": dict(self.where.most_common()),
            "beside": dict(self.beside.most_common()),
            "runs": dict(self.runs),
            "runs_by_pipeline": {name: dict(counts) for name, counts in self.runs_by_pipeline.items()},
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
        project: A folder for a project that declares a second pipeline; None for the environment's alone.
        settings: Variables that the runs have besides.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - a server, places and what decides the rounds
        self,
        private: PrivateServer,
        database: str,
        home: Path,
        seed: int,
        project: Path | None,
        settings: Mapping[str, str],
    ) -> None:
        self.private, self.database, self.home, self.seed, self.settings = private, database, home, seed, settings
        self.tally = Tally()
        self.good = [in_one_form(json.dumps(values)) for values in iris_items(200, seed=seed)]
        self.pipelines = two_pipelines(self.good, project) if project else [pipeline_of_environment(self.good)]
        self.usual: dict[str, list[float]] = collections.defaultdict(lambda: [0.3])
        self.fingerprints: dict[tuple[Plan, str], dict[str, Rows]] = {}
        self._watch: pymysql.Connection[Any] | None = None
        self._prepare_tables()
        self.environments = {pipeline.name: self._environment(pipeline.account) for pipeline in self.pipelines}

    def sql(self, statement: str, *parameters: object) -> Rows:
        """Executes a statement in a transaction of its own, without the package."""
        return self.private.server.execute(statement, *parameters, database=self.database)

    def change(self, statement: str, *parameters: object) -> None:
        """Executes a statement beside runs; again, as any client does, where the server ends it to end a deadlock."""
        while True:
            try:
                self.sql(statement, *parameters)
            except pymysql.err.OperationalError as error:
                if error.args[0] != _DEADLOCK:
                    raise
            else:
                return

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

    def connections(self, account: str) -> list[tuple[int, str | None]]:
        """Returns the connections of the workers of an account, and the statements that they execute.

        Over a connection that is kept: statements take milliseconds, and would be over before one is made.
        """
        if self._watch is None or not self._watch.open:
            self._watch = self.connect()
        with self._watch.cursor() as cursor:
            cursor.execute("SHOW FULL PROCESSLIST")
            rows = cursor.fetchall()
        return [(row[0], row[7] if row[4] in ("Query", "Execute") else None) for row in rows if row[1] == account]

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

    def _prepare_tables(self) -> None:
        engine = engine_for(database_settings(self.private.server.environment(self.database)))
        initialize_database(engine, ITEMS)
        for column in (column for pipeline in self.pipelines for column in pipeline.columns_to_add):
            self.sql(f"ALTER TABLE items ADD COLUMN {column}")
        initialize_database(engine, *(item_table(pipeline.declaration.items) for pipeline in self.pipelines))
        (self.home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        # Two first runs at once would both make Dagster's tables, after which no run can begin.
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            instance.get_run_records(limit=1)
            instance.get_asset_records()

    def _environment(self, account: str) -> dict[str, str]:
        """Makes an account, by which connections can be told, and for which read_only holds; returns its variables."""
        password = secrets.token_hex(16)
        self.sql(f"CREATE USER {account}@'%%' IDENTIFIED BY %s", password)
        self.sql(f"GRANT ALL ON {self.database}.* TO {account}@'%'")
        return {
            **self.private.server.environment(self.database),
            "MYSQL_USER": account,
            "MYSQL_PASSWORD": password,
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "BATCH_ASSETS_HOME": str(self.home),
            "BATCH_FIRST_HOUR": os.environ["BATCH_FIRST_HOUR"],
            "BATCH_TRANSIENT_RETRIES": "3",
            "BATCH_TRANSIENT_RETRY_SECONDS": "0.5",
            **self.settings,
        }

    def report(self, plan: Plan, pipeline: str, what: str, ids: Sequence[int] = ()) -> None:
        """Notes a violation, and prints it at once.

        Args:
            plan: The round.
            pipeline: That of which something is wrong, or all.
            what: What is wrong.
            ids: With which items.
        """
        violation = {"round": plan.number, "seed": self.seed, "modes": plan.modes, "hour": str(plan.start)}
        violation |= {"pipeline": pipeline, "what": what}
        violation |= {"ids": sorted(ids)[:50], "count": len(ids)} if ids else {}
        self.tally.violations.append(violation)
        print(f"VIOLATION {json.dumps(violation)}", flush=True)

    def fingerprint(self, plan: Plan, pipeline: ScoredPipeline) -> dict[str, Rows]:
        """Returns by table what changes with any item of the hour, or with anything recorded of it for a pipeline."""
        items = self.sql(
            f"SELECT COUNT(*), BIT_XOR(CRC32(CONCAT_WS('|', id, `values`, {pipeline.column}, created_datetime)))"
            " FROM items WHERE created_datetime >= %s AND created_datetime < %s",
            *(plan.start, plan.start + datetime.timedelta(hours=1)),
        )
        recorded = "SELECT * FROM {} WHERE pipeline = %s AND hour = %s"
        return {"items": items} | {
            table: sorted(self.sql(recorded.format(table), pipeline.name, plan.start))
            for table in ("failed_items", "run_summary", "hour_locks", "hour_requests")
        }

    def check_earlier_hours(self) -> None:
        """Checks that no round has touched the hour of another."""
        of_name = {pipeline.name: pipeline for pipeline in self.pipelines}
        for (plan, name), before in self.fingerprints.items():
            if changed := changed_tables(before, self.fingerprint(plan, of_name[name])):
                self.report(plan, name, f"the hour has changed after its round: {changed}")


def changed_tables(before: Mapping[str, Rows], after: Mapping[str, Rows]) -> str:
    """Returns the tables in which two fingerprints differ, in words; empty if they do not."""
    return ", ".join(table for table, rows in after.items() if rows != before[table])


def first_fault(output: str) -> str:
    """Returns how the first fault that a run tells of begins."""
    found = re.search(r"^(?:dagster\S+: |\S*Error: ).*", output, re.MULTILINE)
    return found[0][:500] if found else output[-500:]
