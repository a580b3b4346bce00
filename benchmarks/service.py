"""What a run costs the service whose table it writes: how long the service's inserts and reads take beside it.

    python -m benchmarks.service [--items 1000000] [--rounds 3] [--clients 4] [--rate 200] [--seconds 20]
        [--nice N] [--server mariadb|mysql] [--redo-log 2G] [--json FILE]

A process of its own inserts items (autocommit, a row each, into the present hour) and reads items by id, in turn, at a
fixed rate: a request is due at its time whether the ones before have been answered or not, and its latency counts from
then, so that a server that stands still shows. In each round a real `dagster job execute` scores an hour of items once
beside the service and once alone. The service is measured before, during and after the step that scores, and beside a
process that only computes: that is what a busy core costs the service where all share a few, whatever the run writes.

The server is that of MYSQL_SERVER (a database of its own on it), or a private one of the kind of --server. Settings of
the package pass through: `BATCH_MAX_SLOWDOWN=2 python -m benchmarks.service`. A private server has a redo log of the
size that --redo-log says. An hour does not fit into that of a server without settings, of 100 MB: whenever it is full,
all who write wait until the server has written its pages, at whatever pace the run goes.

Where worker, service and server share a few cores, they take them from each other, as they would not with the worker on
a machine of its own: `--nice 19` has the worker take what the others leave.
"""

import argparse
import contextlib
import datetime
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pymysql

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.schema.setup import initialize_database
from batch_assets.settings.database import database_settings
from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.engines import ITEMS
from batch_assets_tests.support.servers import Server, server_for_tests
from benchmarks.servers import server_of_kind

KINDS = ("insert", "read")
PHASES = ("before", "during", "after", "computing")
# Phases with something beside the service, of which the ratio to the service alone is given.
RATIOS = {"ratio": "during", "computing_ratio": "computing"}
RUN_SECONDS = 3600
_STEP = re.compile(r" - predictions - STEP_(START|SUCCESS) - ")


@dataclass(frozen=True)
class Request:
    """A request of the service: when it was due (by the monotonic clock), its latency in seconds, how it ended."""

    kind: str
    due: float
    latency: float
    error: str = ""


@dataclass(frozen=True)
class Run:
    """A run: when the step that scores began and ended (by the monotonic clock), and the items it scored."""

    start: float
    end: float
    items: int

    @property
    def rows_per_second(self) -> float:
        """The items over the seconds of the step."""
        return self.items / (self.end - self.start)


# The service


class Service:
    """The service as the benchmark starts and ends it.

    Args:
        server: Where its database is.
        database: The name of it.
        rate: Requests a second.
        clients: Connections, each of which has one request at a time.
        last_id: It reads items up to this id.
    """

    def __init__(self, server: Server, database: str, rate: float, clients: int, last_id: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._answers, answers = context.Pipe(duplex=False)
        self._end = context.Event()
        self._process = context.Process(
            target=serve, args=(server, database, rate, clients, last_id, self._end, answers), daemon=True
        )

    def __enter__(self) -> "Service":
        self._process.start()
        self._answers.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    def requests(self) -> list[Request]:
        """Ends the service and returns what it has done."""
        self._end.set()
        requests: list[Request] = self._answers.recv()
        return requests


def serve(  # noqa: PLR0913, PLR0917 - a process takes what it needs one by one
    server: Server, database: str, rate: float, clients: int, last_id: int, end: Event, answers: Connection
) -> None:
    """Is the service: serves until it is told to end, and hands over what it has done."""
    done: list[Request] = []
    numbers = itertools.count()
    answers.send("started")
    start = time.monotonic() + 0.1

    def client() -> None:
        with contextlib.closing(connected(server, database)) as connection:
            while not end.is_set():
                number = next(numbers)
                due = start + number / rate
                time.sleep(max(0, due - time.monotonic()))
                done.append(_answered(connection, KINDS[number % 2], due, last_id))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers.send(done)


def _answered(connection: "pymysql.Connection[Any]", kind: str, due: float, last_id: int) -> Request:
    error = ""
    try:
        with connection.cursor() as cursor:
            if kind == "insert":
                cursor.execute("INSERT INTO items (`values`) VALUES ('[5.1, 3.5, 1.4, 0.2]')")
            else:
                cursor.execute("SELECT * FROM items WHERE id = %s", (random.randint(1, last_id),))
                cursor.fetchall()
    except pymysql.err.MySQLError as fault:
        error = str(fault)
        connection.ping(reconnect=True)
    return Request(kind, due, time.monotonic() - due, error)


def connected(server: Server, database: str) -> "pymysql.Connection[Any]":
    """Returns a connection as a service has it."""
    return pymysql.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        database=database,
        autocommit=True,
    )


# The runs


def fill(server: Server, database: str, hour: datetime.datetime, count: int) -> int:
    """Puts items without a prediction into an hour, and returns the highest id there is."""
    digits = " UNION ALL ".join(f"SELECT {digit} AS d" for digit in range(10))
    powers = range(1, max(2, len(str(count - 1))))
    numbers = "ones.d" + "".join(f" + {10**power} * d{power}.d" for power in powers)
    tables = f"({digits}) AS ones" + "".join(f" CROSS JOIN ({digits}) AS d{power}" for power in powers)
    server.execute(
        "INSERT INTO items (`values`, created_datetime) SELECT CONCAT('[', 4 + MOD(number, 39) / 10, ', ', "
        "2 + MOD(number, 24) / 10, ', ', 1 + MOD(number, 59) / 10, ', ', MOD(number, 25) / 10, ']'), "
        f"TIMESTAMP '{hour}' + INTERVAL (number * 3600 DIV {count}) SECOND "
        f"FROM (SELECT {numbers} AS number FROM {tables}) AS numbers WHERE number < {count}",
        database=database,
    )
    server.execute("ANALYZE TABLE items", database=database)
    return int(server.execute("SELECT MAX(id) FROM items", database=database)[0][0])


def scored(environment: Mapping[str, str], hour: datetime.datetime, items: int, nice: int) -> Run:
    """Runs the job on an hour as an operator does, and returns when its step that scores was at work."""
    tags = json.dumps({"dagster/partition": hour.strftime("%Y-%m-%d-%H:%M")})
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m"]
    command += ["batch_assets.definitions", "-j", "batch_inference", "--tags", tags]
    output, times = [], {}
    with subprocess.Popen(
        command,
        cwd=root_folder(),
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
        preexec_fn=lambda: _give_way(nice),  # noqa: PLW1509 - this process has no other thread
    ) as process:
        assert process.stdout
        limit = threading.Timer(RUN_SECONDS, process.kill)
        limit.start()
        try:
            for line in process.stdout:
                output.append(line)
                if found := _STEP.search(line):
                    times[found[1]] = time.monotonic()
        except BaseException:
            process.kill()  # in its session, Ctrl-C does not reach it
            raise
        finally:
            limit.cancel()
    if process.returncode:
        sys.exit(f"The run of {hour} failed:\n{''.join(output[-40:])}")
    return Run(times["START"], times["SUCCESS"], items)


def _give_way(nice: int) -> None:
    os.nice(nice)
    # Linux weighs sessions against each other, and by niceness only the processes within one.
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/self/autogroup").write_text(str(nice), "ascii")


@contextlib.contextmanager
def computing() -> Iterator[None]:
    """Keeps a core busy by a process that neither asks the server nor writes."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def check(server: Server, database: str, hour: datetime.datetime, items: int) -> None:
    """Makes sure that the run has scored the hour: what it has not done cannot have cost anything."""
    counted = server.execute(
        "SELECT COUNT(prediction) FROM items WHERE created_datetime >= %s AND created_datetime < %s",
        hour,
        hour + datetime.timedelta(hours=1),
        database=database,
    )
    if counted != [(items,)]:
        sys.exit(f"Of the {items} items of {hour}, {counted[0][0]} have a prediction.")


# The figures


def summary(requests: list[Request], start: float, end: float) -> dict[str, dict[str, Any]]:
    """Returns latencies in milliseconds of the requests that were due between two times, by their kind."""
    chosen = [request for request in requests if start <= request.due < end]
    return {kind: _latencies([request for request in chosen if request.kind == kind]) for kind in KINDS}


def _latencies(requests: list[Request]) -> dict[str, Any]:
    if not requests:
        sys.exit("The service was not measured while something was to be: set --items, --rate or --seconds higher.")
    latencies = sorted(request.latency * 1000 for request in requests)
    return {
        "requests": len(latencies),
        "errors": sum(1 for request in requests if request.error),
        "p50": percentile(latencies, 0.5),
        "p99": percentile(latencies, 0.99),
        "max": latencies[-1],
    }


def percentile(values: list[float], share: float) -> float:
    """Returns the least of the sorted values below which, or at which, this share of them lies."""
    return values[max(0, math.ceil(share * len(values)) - 1)]


def medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the median over the rounds of each figure, and of the ratios of what was measured side by side."""
    document: dict[str, Any] = {}
    for kind in KINDS:
        document[kind] = {}
        for figure in ("p50", "p99", "max"):
            by_phase = {phase: [each[phase][kind][figure] for each in rounds] for phase in PHASES}
            alone = [statistics.mean(pair) for pair in zip(by_phase["before"], by_phase["after"], strict=True)]
            document[kind][figure] = {phase: statistics.median(values) for phase, values in by_phase.items()}
            for ratio, phase in RATIOS.items():
                ratios = [beside / of_round for beside, of_round in zip(by_phase[phase], alone, strict=True)]
                document[kind][figure][ratio] = statistics.median(ratios)
    for name in ("rows_per_second_beside_the_service", "rows_per_second_alone"):
        document[name] = statistics.median(each[name] for each in rounds)
    document["share_of_speed_beside_the_service"] = statistics.median(
        each["rows_per_second_beside_the_service"] / each["rows_per_second_alone"] for each in rounds
    )
    document["errors"] = sum(each[phase][kind]["errors"] for each in rounds for phase in PHASES for kind in KINDS)
    return document


def print_table(document: dict[str, Any]) -> None:
    """Prints the medians."""
    print(f"\n{'ms':<16}" + "".join(f"{name:>12}" for name in (*PHASES, *(f"x {phase}" for phase in RATIOS.values()))))
    for kind in KINDS:
        for figure, values in document[kind].items():
            phases = "".join(f"{values[phase]:>12.1f}" for phase in PHASES)
            print(f"{kind + ' ' + figure:<16}{phases}" + "".join(f"{values[ratio]:>12.2f}" for ratio in RATIOS))
    print(
        f"rows a second: {document['rows_per_second_beside_the_service']:,.0f} beside the service, "
        f"{document['rows_per_second_alone']:,.0f} alone ({document['share_of_speed_beside_the_service']:.2f}); "
        f"errors of the service: {document['errors']}"
    )


# The command


def play(server: Server, database: str, hours: Iterator[datetime.datetime], options: argparse.Namespace) -> Any:
    """Plays a round: two hours, one scored beside the service and one alone."""
    environment = {**os.environ, **server.environment(database)}
    with_service, alone = next(hours), next(hours)
    fill(server, database, with_service, options.items)
    last_id = fill(server, database, alone, options.items)
    time.sleep(options.settle)
    with Service(server, database, options.rate, options.clients, last_id) as service:
        begin = time.monotonic() + 1
        time.sleep(1 + options.seconds)
        run = scored(environment, with_service, options.items, options.nice)
        time.sleep(options.settle)
        after = time.monotonic()
        time.sleep(options.seconds)
        with computing():
            beside_computing = time.monotonic()
            time.sleep(options.seconds)
        requests = service.requests()
    run_alone = scored(environment, alone, options.items, options.nice)
    for hour in (with_service, alone):
        check(server, database, hour, options.items)
    return {
        "before": summary(requests, begin, begin + options.seconds),
        "during": summary(requests, run.start, run.end),
        "after": summary(requests, after, after + options.seconds),
        "computing": summary(requests, beside_computing, beside_computing + options.seconds),
        "rows_per_second_beside_the_service": run.rows_per_second,
        "rows_per_second_alone": run_alone.rows_per_second,
    }


@contextlib.contextmanager
def chosen_server(kind: str | None, redo_log: str) -> Iterator[Server]:
    """The server of MYSQL_SERVER, or a private one, which keeps a binary log as those of services do."""
    if os.environ.get("MYSQL_SERVER") and not kind:
        with server_for_tests() as server:
            yield server
        return
    with server_of_kind(kind) as private:
        size = "innodb-log-file-size" if private.server.is_mariadb else "innodb-redo-log-capacity"
        private.restart("--log-bin=log", "--server-id=1", f"--{size}={redo_log}")
        yield private.server


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000, help="items of an hour")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=4, help="connections of the service")
    parser.add_argument("--rate", type=float, default=200, help="its requests a second, half of them inserts")
    parser.add_argument("--seconds", type=float, default=20, help="how long the service is measured without a run")
    parser.add_argument("--settle", type=float, default=5, help="seconds for the server to come to rest, not measured")
    parser.add_argument("--nice", type=int, default=0, help="niceness of the worker, from 0 to 19")
    parser.add_argument("--server", choices=["mariadb", "mysql"], help="a private server of this kind")
    parser.add_argument("--redo-log", default="2G", help="the size of the redo log of a private server")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # byte code is written, as it is wherever the package is installed
    present = datetime.datetime.now(datetime.UTC).replace(minute=0, second=0, microsecond=0, tzinfo=None)
    hours = (present - datetime.timedelta(hours=number) for number in itertools.count(1))
    first = present - datetime.timedelta(hours=2 * options.rounds)
    with (
        tempfile.TemporaryDirectory() as home,
        chosen_server(options.server, options.redo_log) as server,
        server.database() as database,
    ):
        os.environ.update(BATCH_ASSETS_HOME=home, DAGSTER_HOME=home, DAGSTER_DISABLE_TELEMETRY="yes")
        os.environ["BATCH_FIRST_HOUR"] = first.strftime("%Y-%m-%d-%H:%M")
        initialize_database(engine_for(database_settings({**os.environ, **server.environment(database)})), ITEMS)
        rounds = []
        for _ in range(options.rounds):
            rounds.append(play(server, database, hours, options))
            print(json.dumps(rounds[-1]), flush=True)
        version = server.version
    document = medians(rounds)
    print_table(document)
    if options.json:
        settings = {name: value for name, value in os.environ.items() if name.startswith("BATCH_MAX_")}
        whole = {"server": version, "options": vars(options), "settings": settings, "medians": document}
        options.json.write_text(json.dumps({**whole, "rounds": rounds}, indent=2, default=str), "utf-8")


if __name__ == "__main__":
    main()
