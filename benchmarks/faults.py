"""A fault campaign: hours are scored on a private server while workers and the server die, and nothing may be lost.

    python -m benchmarks.faults --faults 300 --seed 1 [--server mariadb|mysql] [--json FILE]

Each round has an hour of its own. While the job runs on it, faults of the kinds in `KINDS` hit it, mostly in the step
that scores. Then the hour is checked by SQL that shares nothing with the package, a healthy run completes it, and it is
checked again. Prints counts by kind and every violation; the exit status is 1 if there is one.

The seed decides which rounds and faults there are and for which part of which step they are meant. The moment at which
they really hit varies with the machine, and with it what they find. A fault that finds no run is not counted, but tried
again on another run.
"""

import argparse
import collections
import contextlib
import datetime
import json
import multiprocessing
import os
import random
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pymysql

import batch_assets.definitions
from batch_assets.database.engine import engine_for
from batch_assets.database.schema import initialize_database
from batch_assets.database.settings import database_settings
from batch_assets.folders import root_folder
from batch_assets.inference.training import iris_items
from batch_assets_tests.pipeline import assert_hour_adds_up, insert_items, iris_probabilities
from batch_assets_tests.servers import PrivateServer, Rows
from benchmarks.servers import server_of_kind

# What forked workers have already. Not onnxruntime: its threads do not survive a fork. The definitions come first:
# importing the tests' helpers clears the environment.
PRELOADED = ["batch_assets.definitions", "batch_assets_tests.pipeline", "alembic", "pymysql", "orjson"]
MODES = ("partial", "whole_batch")
KINDS = (
    "kill_worker",
    "cut_connection",
    "kill_query",
    "restart_server",
    "kill_server",
    "service",
    "rival",
    "row_locks",
    "read_only",
)
# What is no reason for a run to fail: it is to be waited for, or does not concern it. (A rival may make a run fail
# that is told not to wait; its output must name the other run then.)
HARMLESS = {"service", "row_locks", "rival"}
# Where faults are meant to hit, and how often.
STEPS = {"start": 1, "raw_items": 1, "predictions": 7, "run_summary": 2}
ITEMS = (3_000, 12_000, 25_000)
FIRST_HOUR = datetime.datetime(2026, 1, 1)  # noqa: DTZ001 - UTC without a zone, as in the database
BAD = ("[5.1, null, 1.4, 0.2]", "[1, 2]", '"setosa"', '{"width": 1}', '[5.1, "x", 1.4, 0.2]', "[1e300, 1, 1, 1]")
# One in so many items is bad from the beginning.
BAD_EVERY = 97
# No model says this of an item: by it predictions of "an old model" are told from new ones.
OLD = "[0.5, 0.25, 0.25]"
# The service writes to these items and to those that it inserts; all others are nobody's but the runs'.
SERVICE_SHARE = 5
TOLERANCE = 1e-5
RUN_SECONDS = 180
ATTEMPTS = 5
_STEP = re.compile(r" - (raw_items|predictions|run_summary) - STEP_START - ")
_TOOK = re.compile(r' - STEP_SUCCESS - Finished execution of step "(\w+)" in ([\d.]+)(ms|s)\.')
_RUN_ID = re.compile(r" - batch_inference - ([0-9a-f-]{36}) - ")


@dataclass(frozen=True)
class Fault:
    """A fault as it is planned: in which step, and after which part of the step's usual duration."""

    kind: str
    step: str
    part: float


@dataclass(frozen=True)
class Plan:
    """A round as the seed has it."""

    number: int
    mode: str
    busy: str
    items: int
    scored: float
    command_line: bool
    faults: tuple[Fault, ...]

    @property
    def start(self) -> datetime.datetime:
        """The start of the round's hour."""
        return FIRST_HOUR + datetime.timedelta(hours=self.number)


def plan(number: int, seed: int, kinds: Sequence[str], modes: Sequence[str]) -> Plan:
    """Draws a round."""
    draw = random.Random(f"{seed}/{number}")
    steps = draw.choices(list(STEPS), list(STEPS.values()), k=len(kinds))
    return Plan(
        number=number,
        mode=modes[number % len(modes)],
        busy=draw.choice(["wait", "fail"]),
        items=draw.choice(ITEMS),
        scored=draw.choice([0, 0.3]),
        command_line=draw.random() < 0.1,
        # The root favours the later part of a step: the first part of the scoring one loads the model.
        faults=tuple(Fault(kind, step, draw.random() ** 0.5) for kind, step in zip(kinds, steps, strict=True)),
    )


def kinds_in_turn(seed: int) -> Iterator[str]:
    """Yields kinds in a random order in which each has its turn as often as every other."""
    draw = random.Random(seed)
    while True:
        yield from draw.sample(KINDS, len(KINDS))


# Workers


def work(key: str, mode: str, log: str, environment: dict[str, str]) -> None:
    """Runs the job in this process, which was forked with all imports done, as the command line does."""
    os.environ.update(environment)
    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    import dagster as dg  # noqa: PLC0415 - there already

    job = batch_assets.definitions.defs.resolve_job_def("batch_inference")
    with dg.DagsterInstance.get() as instance:
        result = job.execute_in_process(
            instance=instance, partition_key=key, tags={"batch_assets/retry": mode}, raise_on_error=False
        )
    sys.exit(0 if result.success else 1)


class Run:
    """A run of the job in a process of its own.

    Args:
        environment: What the worker's environment has besides.
        hour: The partition.
        mode: The retry mode.
        log: Gets what the worker prints, by which it is watched.
        command_line: Whether it is the real command, or a process forked with all imports done.
    """

    def __init__(self, environment: dict[str, str], hour: str, mode: str, log: Path, *, command_line: bool) -> None:
        self.log = log
        self.hits: list[str] = []
        self.noted = False
        self._read, self._step = 0, "start"
        self._forked = self._command = None
        log.touch()
        if command_line:
            tags = json.dumps({"dagster/partition": hour, "batch_assets/retry": mode})
            command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "batch_assets.definitions"]
            with log.open("wb") as output:
                self._command = subprocess.Popen(
                    [*command, "-j", "batch_inference", "--tags", tags],
                    cwd=environment["DAGSTER_HOME"],
                    env={**os.environ, **environment, "PYTHONPATH": str(root_folder())},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
        else:
            workers = multiprocessing.get_context("forkserver")
            self._forked = workers.Process(target=work, args=(hour, mode, str(log), environment), daemon=True)
            self._forked.start()

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal, None while it runs."""
        if self._forked is not None:
            return self._forked.exitcode
        assert self._command is not None
        return self._command.poll()

    @property
    def outcome(self) -> str:
        """How it ended."""
        return {0: "green", -9: "killed"}.get(-1 if self.status is None else self.status, "red")

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text("utf-8", "replace")

    @property
    def run_id(self) -> str | None:
        """Its id, None before it has one."""
        found = _RUN_ID.search(self.output)
        return found[1] if found else None

    @property
    def step(self) -> str:
        """The step that it began last."""
        # Asked hundreds of times a second: only what is new is read, of which a line may be half there.
        with self.log.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        self._step = [self._step, *_STEP.findall(whole.decode("utf-8", "replace"))][-1]
        return self._step

    def kill(self) -> None:
        """Ends it at once."""
        process = self._forked or self._command
        assert process is not None
        process.kill()

    def wait(self, seconds: float = RUN_SECONDS) -> bool:
        """Waits for its end; whether it came in time."""
        end = time.monotonic() + seconds
        while self.status is None and time.monotonic() < end:
            time.sleep(0.01)
        return self.status is not None


# The service


class Service:
    """The web service, which alone writes values, and remembers what it has committed.

    Args:
        sql: Executes a statement in a transaction of its own.
        hour: The start of the hour in which it writes.
        texts: The values of the items there are, by id.
        good: Values to choose from.
    """

    def __init__(self, sql: Callable[..., Rows], hour: datetime.datetime, texts: dict[int, str], good: Sequence[str]):
        self.texts = texts
        self.deleted: set[int] = set()
        self.corrected: set[int] = set()
        self.commits = 0
        self.disturbed = 0
        # What a statement was to make of an item when the connection broke: it may have been committed or not.
        self.in_doubt: dict[int, tuple[str | None, str | None]] = {}
        self._sql, self._good = sql, good
        self._created = hour + datetime.timedelta(minutes=45)
        self._next = max(texts) + 1
        self._own = [key for key in texts if key % SERVICE_SHARE == 0]
        self._lock = threading.Lock()  # two bursts may go on at once

    def burst(self, draw: random.Random, seconds: float) -> None:
        """Inserts, corrects and deletes items for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with self._lock:
                self._write(draw)
            time.sleep(0.005)

    def _write(self, draw: random.Random) -> None:
        text = draw.choice([*self._good[:20], *BAD])
        action = draw.choice(["insert", "correct", "correct", "delete"])
        if action == "insert":
            key, self._next = self._next, self._next + 1
            statement = "INSERT INTO items (id, `values`, created_datetime) VALUES (%s, %s, %s)"
            self._commit(key, text, statement, key, text, self._created)
            self._own.append(key)
            return
        key = draw.choice(self._own)
        if key not in self.texts or key in self.in_doubt:
            return
        if action == "correct":
            # The contract: whoever corrects values takes the prediction away.
            self.corrected.add(key)
            statement = "UPDATE items SET `values` = %s, prediction = NULL WHERE id = %s"
            self._commit(key, text, statement, text, key)
        else:
            self._commit(key, None, "DELETE FROM items WHERE id = %s", key)

    def _commit(self, key: int, text: str | None, statement: str, *parameters: object) -> None:
        try:
            self._sql(statement, *parameters)
        except pymysql.err.MySQLError:
            self.disturbed += 1
            self.in_doubt[key] = (self.texts.get(key), text)
            time.sleep(0.1)  # the server is away
        else:
            self.commits += 1
            self._remember(key, text)

    def _remember(self, key: int, text: str | None) -> None:
        if text is None:
            self.texts.pop(key, None)
            self.deleted.add(key)
        else:
            self.texts[key] = text

    def settle(self) -> list[int]:
        """Looks up what became of the items in doubt; returns those of which neither version stands there."""
        lost = []
        for key, versions in self.in_doubt.items():
            rows = self._sql("SELECT `values` FROM items WHERE id = %s", key)
            found = [
                text for text in versions if (_read(text) if text else None) == (_read(rows[0][0]) if rows else None)
            ]
            if not found:
                lost.append(key)
            elif found[0] is not None or key in self.texts:
                self._remember(key, found[0])
        self.in_doubt.clear()
        return lost


# Readers


class Reader:
    """Somebody who reads a whole-batch hour again and again, each time in one statement.

    The items of the service are counted apart from the others. Nobody but the runs writes to the others: of these, all
    good ones must have the old prediction or all the new one. An item of the service has none from the moment when it
    is inserted or corrected until a run publishes; so it may lack one at any time, but never have a new one beside old
    ones, or an old one beside new ones.
    """

    def __init__(self, sql: Callable[..., Rows], plan: Plan, last: int, bad: int, report: Callable[..., None]) -> None:
        self.looks, self.disturbed = 0, 0
        self._sql, self._plan, self._last, self._bad, self._report = sql, plan, last, bad, report
        self._told: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="reader")

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._stop.wait(0.02):
            try:
                groups = self._look()
            except pymysql.err.MySQLError:
                self.disturbed += 1  # the server is away
                continue
            self.looks += 1
            self._judge(groups)

    def _look(self) -> dict[int, tuple[int, int, int]]:
        start = self._plan.start
        rows = self._sql(
            f"SELECT id %% {SERVICE_SHARE} = 0 OR id > %s, SUM(prediction IS NULL), SUM(prediction LIKE %s),"
            " SUM(prediction NOT LIKE %s) FROM items"
            " WHERE created_datetime >= %s AND created_datetime < %s GROUP BY 1",
            *(self._last, OLD, OLD, start, start + datetime.timedelta(hours=1)),
        )
        return {int(group): (int(none), int(old or 0), int(new or 0)) for group, none, old, new in rows}

    def _judge(self, groups: dict[int, tuple[int, int, int]]) -> None:
        (none, old, new), (_, service_old, service_new) = groups[0], groups.get(1, (0, 0, 0))
        if old and new:
            self._tell("mixture", f"a reader saw {old} old and {new} new predictions at once")
        if none != self._bad:
            self._tell("hole", f"a reader saw {none} items without a prediction where {self._bad} are bad")
        if (old and service_new) or (new and service_old):
            seen = f"{old} old and {new} new predictions, of the service's {service_old} and {service_new}"
            self._tell("service", f"a reader saw {seen}")

    def _tell(self, kind: str, what: str) -> None:
        """Reports the first look of a round that shows a violation, not the hundreds after it."""
        if kind not in self._told:
            self._told.add(kind)
            self._report(what)


# The campaign


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
        self.expected = {_read(text): row for text, row in zip(self.good, iris_probabilities(self.good), strict=True)}
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
        initialize_database(engine_for(database_settings(self.private.server.environment(self.database))))
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


class Round:
    """An hour, the runs on it and the faults that hit them."""

    def __init__(self, campaign: Campaign, plan: Plan) -> None:
        self.campaign, self.plan, self.sql, self.tally = campaign, plan, campaign.sql, campaign.tally
        self.start, self.end = str(plan.start), str(plan.start + datetime.timedelta(hours=1))
        self.key = plan.start.strftime("%Y-%m-%d-%H:%M")
        self.draw = random.Random(f"{campaign.seed}/{plan.number}/round")
        self.runs: list[Run] = []
        self.threads: list[threading.Thread] = []
        self.service = self._fill()

    def play(self) -> None:
        """Lets the faults hit, checks the hour, completes it and checks it again."""
        self.tally.modes[self.plan.mode] += 1
        with contextlib.ExitStack() as stack:
            stack.callback(self._end_all)
            reader = stack.enter_context(self._reader()) if self.plan.mode == "whole_batch" else None
            self._start()
            for fault in self.plan.faults:
                self._hit(fault)
            for thread in self.threads:
                thread.join()
            for run in self.runs:
                self._note_end(run)
            self.check(completed=False)
            self._complete()
        self.check(completed=True)
        self.campaign.fingerprints[self.plan] = fingerprint_of(self.sql, self.plan)
        self.tally.numbers.update(items=len(self.service.texts), service_commits=self.service.commits)
        self.tally.numbers.update(service_disturbed=self.service.disturbed)
        if reader:
            self.tally.numbers.update(looks=reader.looks, looks_disturbed=reader.disturbed)

    def _fill(self) -> Service:
        texts = self.draw.choices(self.campaign.good, k=self.plan.items)
        for position in range(0, len(texts), BAD_EVERY):
            texts[position] = self.draw.choice(BAD)
        middle = str(self.plan.start + datetime.timedelta(minutes=30))
        ids = insert_items(self.sql, texts, middle)
        within = "created_datetime >= %s AND created_datetime < %s"
        bad = [key for key, text in zip(ids, texts, strict=True) if text in BAD]
        self.strictly_bad = sum(key % SERVICE_SHARE != 0 for key in bad)
        self.last = ids[-1]
        if self.plan.mode == "whole_batch":
            self.sql(f"UPDATE items SET prediction = %s WHERE {within}", OLD, self.start, self.end)
            self.sql(f"UPDATE items SET prediction = NULL WHERE id IN ({', '.join(map(str, bad))})")
        elif self.plan.scored:
            for text in self.campaign.good:
                prediction = json.dumps(self.campaign.expected[_read(text)].tolist())
                some = [key for key, own in zip(ids, texts, strict=True) if own == text]
                some = some[: int(len(some) * self.plan.scored)]
                if some:
                    self.sql(f"UPDATE items SET prediction = %s WHERE id IN ({', '.join(map(str, some))})", prediction)
        return Service(self.sql, self.plan.start, dict(zip(ids, texts, strict=True)), self.campaign.good)

    def _reader(self) -> Reader:
        return Reader(self.sql, self.plan, self.last, self.strictly_bad, self._report)

    def _report(self, what: str, ids: Sequence[int] = ()) -> None:
        self.campaign.report(self.plan, what, ids)

    # Runs

    def _start(self, *, busy: str = "") -> Run:
        number = self.tally.numbers["runs_started"]
        self.tally.numbers["runs_started"] += 1
        environment = self.campaign.environment | {"BATCH_BUSY_HOUR": busy or self.plan.busy}
        log = self.campaign.home / f"run-{number}.log"
        run = Run(environment, self.key, self.plan.mode, log, command_line=self.plan.command_line)
        self.runs.append(run)
        return run

    def _running(self) -> Run:
        """Returns a run that is alive; a new one, with something to do, if all have ended."""
        for run in self.runs:
            if run.status is None:
                return run
        for run in self.runs:
            self._note_end(run)
        self._give_work()
        return self._start()

    def _give_work(self) -> None:
        """Takes predictions away, as whoever wants them anew does, so that another run has something to do."""
        within = "created_datetime >= %s AND created_datetime < %s"
        if self.plan.mode == "whole_batch":
            statement = f"UPDATE items SET prediction = %s WHERE prediction IS NOT NULL AND {within}"
            self.sql(statement, OLD, self.start, self.end)
        else:
            self.sql(f"UPDATE items SET prediction = NULL WHERE id %% 2 = 0 AND {within}", self.start, self.end)

    def _note_end(self, run: Run) -> None:
        """Waits for the end of a run, and checks that it says the truth about itself."""
        if run.noted:
            return
        run.noted = True
        if not run.wait():
            self._report(f"a run has not ended within {RUN_SECONDS} s ({run.step}): {run.output[-2000:]}")
            run.kill()
            run.wait()
        self.tally.runs[run.outcome] += 1
        for kind in set(run.hits):
            self.tally.outcomes[kind][run.outcome] += 1
        said = " - RUN_SUCCESS - " in run.output
        if (run.outcome == "green") != said and run.outcome != "killed":
            self._report(f"a run ended with status {run.status} and said {'' if said else 'not '}that it succeeded")
        if run.outcome == "red" and not self._may_be_red(run):
            self._report(f"a run ended red, hit by {run.hits or 'nothing'}: {_sentence(run.output)}")
        if run.outcome == "green":
            for step, number, unit in _TOOK.findall(run.output):
                self.campaign.usual[step].append(float(number) / (1000 if unit == "ms" else 1))

    def _may_be_red(self, run: Run) -> bool:
        if set(run.hits) - HARMLESS:
            return True
        others = [other.run_id for other in self.runs if other is not run]
        return self.plan.busy == "fail" and any(other and other in run.output for other in others)

    def _complete(self) -> None:
        """The healthy run at the end."""
        run = self._start(busy="wait")
        self._note_end(run)
        if run.outcome != "green":
            self._report(f"the healthy run at the end is {run.outcome}: {_sentence(run.output)}")

    def _end_all(self) -> None:
        for run in self.runs:
            if run.status is None:
                run.kill()
                run.wait()

    # Faults

    def _hit(self, fault: Fault) -> None:
        """Lets a fault hit a run; tries again, earlier in the step, where the run has ended before."""
        strike: Callable[[Run], bool] = getattr(self, f"_{fault.kind}")
        part = fault.part
        for _ in range(ATTEMPTS):
            run = self._running()
            if self._await_moment(run, fault.step, part):
                step, doing = run.step, self._doing()
                if strike(run):
                    self.tally.faults[fault.kind] += 1
                    self.tally.where[f"{step}: {doing}"] += 1
                    return
            self.tally.missed[fault.kind] += 1
            part /= 2

    def _await_moment(self, run: Run, step: str, part: float) -> bool:
        """Waits until a part of a step's usual duration has passed; whether the run is alive then."""
        order = list(STEPS)
        while run.status is None and order.index(run.step) < order.index(step):
            time.sleep(0.005)
        # The second run of an hour costs less than the first: a slow one would put every fault behind its end.
        end = time.monotonic() + part * statistics.median(self.campaign.usual[step][-20:])
        while run.status is None and time.monotonic() < end:
            time.sleep(0.005)
        return run.status is None

    def _doing(self) -> str:
        statements = [statement for _, statement in self.campaign.connections() if statement]
        return statements[0].split(maxsplit=1)[0].strip("(").upper() if statements else "no statement"

    def _strike_all(self, kind: str) -> None:
        """Notes a fault with every run that it concerns: rivals share the server and the hour."""
        for run in self.runs:
            if run.status is None or not run.noted:
                run.hits.append(kind)

    def _kill_worker(self, run: Run) -> bool:
        run.kill()
        run.wait()
        if run.status != -9:
            return False
        run.hits.append("kill_worker")
        return True

    def _cut_connection(self, run: Run) -> bool:
        return self._kill(run, "CONNECTION", "cut_connection")

    def _kill_query(self, run: Run) -> bool:
        return self._kill(run, "QUERY", "kill_query")

    def _kill(self, run: Run, what: str, kind: str) -> bool:
        while run.status is None:
            found = [key for key, statement in self.campaign.connections() if statement or what == "CONNECTION"]
            if found:
                self._strike_all(kind)
                if self.campaign.kill(what, self.draw.choice(found)):
                    return True
        return False

    def _restart_server(self, run: Run, *, kill: bool = False) -> bool:
        kind = "kill_server" if kill else "restart_server"
        self._strike_all(kind)
        self.campaign.forget_connection()
        self.campaign.private.stop(kill)
        hit = run.status != 0
        time.sleep(self.draw.random() * 0.5)
        self.campaign.private.start()
        return hit

    def _kill_server(self, run: Run) -> bool:
        return self._restart_server(run, kill=True)

    def _service(self, run: Run) -> bool:
        self._strike_all("service")
        self._meanwhile(self.service.burst, random.Random(self.draw.random()), 0.5 + self.draw.random())
        return run.status is None

    def _rival(self, run: Run) -> bool:
        rival = self._start()
        for each in (run, rival):
            each.hits.append("rival")
        return run.status is None

    def _row_locks(self, run: Run) -> bool:
        self._strike_all("row_locks")
        keys = sorted(self.draw.sample(sorted(self.service.texts), 40))
        self._meanwhile(self._hold_locks, keys, 0.2 + self.draw.random() * 0.6)
        return run.status is None

    def _hold_locks(self, keys: list[int], seconds: float) -> None:
        """Locks rows from behind, against the order in which a run updates them, which may end in a deadlock."""
        try:
            with contextlib.closing(self.campaign.connect()) as connection:
                connection.begin()
                cursor = connection.cursor()
                for part in (keys[20:], keys[:20]):
                    cursor.execute(f"SELECT id FROM items WHERE id IN ({', '.join(map(str, part))}) FOR UPDATE")
                    time.sleep(seconds / 2)
        except pymysql.err.MySQLError:
            self.tally.numbers["locks_disturbed"] += 1  # the server is away, or chose us to end a deadlock

    def _read_only(self, run: Run) -> bool:
        self._strike_all("read_only")
        self.sql("SET GLOBAL read_only = ON")
        hit = run.status is None
        time.sleep(0.2 + self.draw.random() * 0.6)
        self.sql("SET GLOBAL read_only = OFF")
        return hit

    def _meanwhile(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments)
        self.threads.append(thread)
        thread.start()

    # Checks

    def check(self, *, completed: bool) -> None:
        """Checks the hour: that nothing is lost, doubled, stale or wrong; and if completed, that all is done."""
        lost = self.service.settle()
        if lost:
            self._report("items are neither as the service wrote them last nor as before", lost)
        rows = self.sql(
            "SELECT id, `values`, prediction FROM items WHERE created_datetime >= %s AND created_datetime < %s",
            *(self.start, self.end),
        )
        failed = {key for (key,) in self.sql("SELECT item_id FROM failed_items WHERE hour = %s", self.start)}
        values = {key: _read(text) for key, text, _ in rows}
        predictions = {key: orjson.loads(text) for key, _, text in rows if text is not None}
        self._check_values(values)
        self._check_predictions(values, predictions)
        self._check_failed(values, predictions, failed, completed=completed)
        if completed:
            self._check_completed(values, predictions, failed)

    def _check_values(self, values: dict[int, str]) -> None:
        wanted = {key: _read(text) for key, text in self.service.texts.items()}
        for what, ids in {
            "items are lost": wanted.keys() - values.keys(),
            "deleted items are back": values.keys() & self.service.deleted,
            "items are there that nobody wrote": values.keys() - wanted.keys() - self.service.deleted,
            "values are not as committed": [key for key in values if values[key] != wanted.get(key, values[key])],
        }.items():
            if ids:
                self._report(what, list(ids))

    def _check_predictions(self, values: dict[int, str], predictions: dict[int, Any]) -> None:
        old_one = json.loads(OLD)
        old = {key for key, prediction in predictions.items() if prediction == old_one}
        wrong = [key for key in predictions.keys() - old if not self._is_right(values[key], predictions[key])]
        if wrong:
            self._report("predictions do not belong to the values", wrong)
        if old and len(old) < len(predictions):
            self._report("old predictions stand beside new ones", list(old))
        if old and self.plan.mode != "whole_batch":
            self._report("old predictions from nowhere", list(old))

    def _is_right(self, values: str, prediction: Any) -> bool:
        wanted = self.campaign.expected.get(values)
        if wanted is None or not isinstance(prediction, list) or len(prediction) != len(wanted):
            return False
        return bool(max(abs(a - b) for a, b in zip(prediction, wanted, strict=True)) <= TOLERANCE)

    def _check_failed(
        self, values: dict[int, str], predictions: dict[int, Any], failed: set[int], *, completed: bool
    ) -> None:
        bad = {key for key, value in values.items() if value in _BAD}
        # The service knows nothing of failed_items: the next run takes off what it has corrected or deleted.
        excused = set() if completed else self.service.corrected | self.service.deleted
        for what, ids in {
            "items have failed and have a prediction": failed & predictions.keys(),
            "failed items are not there": failed - values.keys() - excused,
            "good items have failed": (failed & values.keys()) - bad - excused,
        }.items():
            if ids:
                self._report(what, list(ids))
        here = failed & values.keys()
        pending = values.keys() - predictions.keys() - here
        if len(values) != len(predictions) + len(here) + len(pending):
            self._report(
                f"{len(values)} items are {len(predictions)} predicted, {len(here)} failed, {len(pending)} pending"
            )

    def _check_completed(self, values: dict[int, str], predictions: dict[int, Any], failed: set[int]) -> None:
        bad = {key for key, value in values.items() if value in _BAD}
        old = [key for key, prediction in predictions.items() if prediction == json.loads(OLD)]
        for what, ids in {
            "items are pending after the healthy run": values.keys() - predictions.keys() - failed,
            "bad items have not failed": bad - failed,
            "old predictions stand after the healthy run": old,
        }.items():
            if ids:
                self._report(what, list(ids))
        try:
            counts = assert_hour_adds_up(self.sql, self.start, self.end)
        except AssertionError as error:
            self._report(f"the hour does not add up: {error}")
            return
        names = "items, predicted, failed, pending"
        summary = self.sql(f"SELECT {names} FROM run_summary WHERE hour = %s", self.start)
        if summary != [tuple(counts)]:
            self._report(f"the summary has {summary}, the tables {tuple(counts)}")


def fingerprint_of(sql: Callable[..., Rows], plan: Plan) -> Rows:
    """Returns what changes with any item of the hour, or with what has failed in it."""
    end = plan.start + datetime.timedelta(hours=1)
    return sql(
        "SELECT COUNT(*), BIT_XOR(CRC32(CONCAT_WS('|', id, `values`, prediction, created_datetime))),"
        " (SELECT COUNT(*) FROM failed_items WHERE hour = %s) FROM items"
        " WHERE created_datetime >= %s AND created_datetime < %s",
        *(plan.start, plan.start, end),
    )


_known: dict[str, str] = {}


def _read(text: str) -> str:
    """Returns values in one form: MySQL writes JSON in its own way, and MariaDB keeps the text as it came."""
    if text not in _known:
        _known[text] = json.dumps(json.loads(text), sort_keys=True)
    return _known[text]


_BAD = {_read(text) for text in BAD}


def _sentence(output: str) -> str:
    """Returns how the first fault that a run tells of begins."""
    found = re.search(r"^(?:dagster\S+: |\S*Error: ).*", output, re.MULTILINE)
    return found[0][:500] if found else output[-500:]


# The command


def run_campaign(campaign: Campaign, faults: int, modes: Sequence[str]) -> None:
    """Plays rounds until so many faults have hit."""
    kinds, number = kinds_in_turn(campaign.seed), 0
    while (left := faults - campaign.tally.faults.total()) > 0:
        size = min(left, random.Random(f"{campaign.seed}/{number}/size").randint(3, 6))
        planned = plan(number, campaign.seed, [next(kinds) for _ in range(size)], modes)
        start = time.monotonic()
        Round(campaign, planned).play()
        print(
            f"round {number}: {planned.mode}, {planned.items} items, {', '.join(f.kind for f in planned.faults)}; "
            f"{time.monotonic() - start:.1f} s, {campaign.tally.faults.total()} faults so far",
            flush=True,
        )
        number += 1
    campaign.check_earlier_hours()


def print_table(document: dict[str, Any]) -> None:
    """Prints what has happened."""
    print(f"\n{'fault':<16}{'hit':>6}{'missed':>8}   runs that ended: {'green':>6}{'red':>6}{'killed':>8}")
    for kind in KINDS:
        ends = document["runs_by_fault"].get(kind, {})
        print(
            f"{kind:<16}{document['faults'].get(kind, 0):>6}{document['missed'].get(kind, 0):>8}{'':>20}"
            f"{ends.get('green', 0):>6}{ends.get('red', 0):>6}{ends.get('killed', 0):>8}"
        )
    print("\nwhere they hit: " + "; ".join(f"{where} {count}" for where, count in document["where"].items()))
    hidden = {"faults", "missed", "where", "runs_by_fault", "violations"}
    print("; ".join(f"{name}: {value}" for name, value in document.items() if name not in hidden))
    print(f"violations: {len(document['violations'])}")
    for violation in document["violations"]:
        print(json.dumps(violation))


def main() -> int:
    """Plays the campaign and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300, help="how many faults are to hit")
    parser.add_argument("--seed", type=int, default=1, help="decides rounds and faults")
    parser.add_argument("--server", choices=["mariadb", "mysql"], help="the kind of server; without it the one found")
    parser.add_argument("--modes", default=",".join(MODES), help="retry modes, in turn")
    parser.add_argument("--json", type=Path, help="a file for the counts and violations")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("MYSQL_", "BATCH_", "DAGSTER_"))]:
        del os.environ[name]  # what is set on the machine would only change results
    # The hours are decided when the definitions are imported: for workers, in the process from which they are forked.
    os.environ["BATCH_FIRST_HOUR"] = FIRST_HOUR.strftime("%Y-%m-%d-%H:%M")
    os.environ["PYTHONPATH"] = str(root_folder())
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    start = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as home,
        server_of_kind(options.server) as private,
        private.server.database() as database,
    ):
        campaign = Campaign(private, database, Path(home), options.seed)
        run_campaign(campaign, options.faults, options.modes.split(","))
        document = campaign.tally.document(time.monotonic() - start, private.server.version, options.seed)
    print_table(document)
    if options.json:
        options.json.write_text(json.dumps(document, indent=2), "utf-8")
    return 1 if document["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
