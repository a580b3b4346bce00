"""What hours cost where there are many: a backfill of a month, and everything else with a year in the tables.

    python -m benchmarks.many_hours backfill [--hours 720] [--items 1000] [--server mariadb|mysql] [--json FILE]
    python -m benchmarks.many_hours year [--hours 24 8760] [--server mariadb|mysql] [--json FILE]

`backfill` launches one over GraphQL, through a real webserver and daemon, and waits until each hour of `predictions`
and of `run_summary` is materialised; then it counts the items with a prediction and asks Dagster for the status of
each hour. It says how long a run waits, starts and spends in each step. The sensor is off (BATCH_RETRY=leave), since it
would request the same hours. Dagster's daemon looks for backfills every 30 seconds, and up to these are in the figures.

`year` measures, beside that many hours which have all been scored, each by a run of its own: to load the definitions,
`dagster job execute` of an hour, a tick of the sensor and of the schedule by the code server's own function, the
checks, `batch-assets status`, and a backfill of all hours from its launch until its first run is queued. The items of
the hours, their summaries, runs and materialisations are copies of those of one hour, written by SQL.

The server is that of MYSQL_SERVER (two databases of its own on it), or a private one of the kind of --server, with the
project's dagster.yaml. Settings of the package pass through:
`BATCH_BACKFILL_HOURS=48 python -m benchmarks.many_hours backfill`.
"""

import argparse
import contextlib
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.register import register_items
from batch_assets.database.schema.setup import initialize_database
from batch_assets.hours import HOUR_FORMAT, Hour, hours_between, open_hour
from batch_assets.iris.training import iris_items
from batch_assets.settings.database import database_settings
from batch_assets.settings.folders import root_folder
from batch_assets_tests.support.engines import ITEMS
from batch_assets_tests.support.instance import ASSETS, RunningInstance, running_instance
from batch_assets_tests.support.servers import Server, server_for_tests
from benchmarks.servers import server_of_kind

SETTINGS = root_folder() / "dagster.yaml"
HOUR = datetime.timedelta(hours=1)
DISTINCT_VALUES = 1000
BACKFILL_SECONDS = 3600
BACKFILL = """query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
}"""
CANCEL = """mutation Cancel($id: String!) { cancelPartitionBackfill(backfillId: $id) { __typename } }"""
STATUSES = """query Statuses($keys: [AssetKeyInput!]!) {
  assetNodes(assetKeys: $keys) {
    assetKey { path }
    assetPartitionStatuses { ... on TimePartitionStatuses { ranges { startKey endKey status } } }
  }
}"""


@dataclass(frozen=True)
class Place:
    """Where something is measured: an empty database with the tables, and what a Dagster instance on it needs.

    Args:
        server: What the databases are on, as it says of itself.
        home: DAGSTER_HOME, a folder of its own.
        environment: All variables that are set for the pipeline.
        dagster_url: Where Dagster keeps its tables.
    """

    server: str
    home: Path
    environment: Mapping[str, str]
    dagster_url: sa.URL

    def engine(self) -> sa.Engine:
        """Returns the engine of the items."""
        return engine_for(database_settings(self.environment))


@contextlib.contextmanager
def place(kind: str | None, first: Hour) -> Iterator[Place]:
    """Makes a place and removes it.

    Args:
        kind: The kind of a private server; None for the server of MYSQL_SERVER or the one that is found.
        first: The first hour of the pipeline.
    """
    passed = {name: value for name, value in os.environ.items() if name.startswith("BATCH_")}
    passed |= {"BATCH_FIRST_HOUR": first.key, "BATCH_RETRY": "leave", "DAGSTER_DISABLE_TELEMETRY": "yes"}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        home = folder / "dagster"
        home.mkdir()
        environment = {**passed, "BATCH_ASSETS_HOME": str(folder / "home"), "DAGSTER_HOME": str(home)}
        server = stack.enter_context(chosen_server(kind))
        items, dagster = (stack.enter_context(server.database()) for _ in range(2))
        environment |= {**server.environment(items), "MYSQL_DAGSTER_DATABASE": dagster}
        url = sa.URL.create("mysql+pymysql", server.user, server.password, server.host, server.port, dagster)
        found = Place(server.version, home, environment, url)
        shutil.copy(SETTINGS, home / "dagster.yaml")
        initialize_database(found.engine(), ITEMS)
        yield found


@contextlib.contextmanager
def chosen_server(kind: str | None) -> Iterator[Server]:
    """The server of MYSQL_SERVER, or a private one of a kind."""
    if kind is None:
        with server_for_tests() as server:
            yield server
        return
    with server_of_kind(kind) as private:
        yield private.server


def fill(engine: sa.Engine, hours: Sequence[Hour], count: int) -> None:
    """Registers so many items in each hour."""
    texts = [json.dumps(values) for values in iris_items(DISTINCT_VALUES, seed=7)]
    texts = (texts * (count // len(texts) + 1))[:count]
    for hour in hours:
        register_items(engine, ITEMS, texts, hour.start + datetime.timedelta(minutes=30))


# A backfill


def backfill(options: argparse.Namespace) -> dict[str, Any]:
    """Measures a backfill of the last hours."""
    end = open_hour()
    hours = hours_between(Hour(end.start - datetime.timedelta(hours=options.hours)), Hour(end.start - HOUR))
    with place(options.server, hours[0]) as where:
        fill(where.engine(), hours, options.items)
        with running_instance(where.home, SETTINGS, where.environment) as instance:
            start = time.time()
            backfill_id = instance.launch_backfill([hour.key for hour in hours])
            print(f"launched after {time.time() - start:.1f} s", flush=True)
            green = await_green(instance, hours)
            seconds = time.time() - start
            # An hour is green before its run has ended.
            instance.wait(BACKFILL, lambda answer: ended(answer["partitionBackfillOrError"]), 300, id=backfill_id)
        with environment_of(where), dg.DagsterInstance.get() as instance_here:
            runs = instance_here.get_run_records(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
            green_runs = [record for record in runs if record.dagster_run.status == dg.DagsterRunStatus.SUCCESS]
            timelines = [timeline(instance_here, record) for record in green_runs]
            faults = {fault for record in runs if record not in green_runs for fault in said(instance_here, record)}
        with where.engine().connect() as connection:
            done = connection.execute(sa.text("SELECT COUNT(*), COUNT(prediction) FROM items")).one()
            summed_up = connection.execute(sa.text("SELECT COUNT(*), SUM(predicted) FROM run_summary")).one()
    for fault in sorted(faults):
        print(fault, file=sys.stderr)
    expected = options.hours * options.items
    return {
        "server": where.server,
        "hours": options.hours,
        "items of an hour": options.items,
        "seconds": round(seconds, 1),
        "runs": len(runs),
        "runs green": len(green_runs),
        "hours green": min(green.values()),
        "all predicted": tuple(done) == (expected, expected) and tuple(summed_up) == (options.hours, expected),
        "seconds until the first run was queued": round(min(line["queued"] for line in timelines) - start, 1),
        "seconds until the last run was queued": round(max(line["queued"] for line in timelines) - start, 1),
        "median seconds of a run": phases(timelines),
        "milliseconds of an hour": {
            name: round(1000 * sum(line["phases"].get(name, 0.0) for line in timelines) / options.hours, 1)
            for name in (*ASSETS, "all of it")
        },
    }


def ended(backfill: Mapping[str, str]) -> bool:
    """Whether a backfill has come to its end, whichever."""
    return backfill["status"].startswith("COMPLETED")


def await_green(instance: RunningInstance, hours: Sequence[Hour]) -> dict[str, int]:
    """Waits until each hour of each asset has a status, and returns how many are materialised, by asset."""
    keys = {hour.key for hour in hours}
    end, told = time.monotonic() + BACKFILL_SECONDS, 0.0
    while True:
        found = {status: counted(instance, keys, status) for status in ("MATERIALIZED", "FAILED")}
        ended = min(sum(counts[name] for counts in found.values()) for name in ASSETS)
        if ended == len(keys) or time.monotonic() > end:
            return found["MATERIALIZED"]
        if time.monotonic() - told > 20:
            told = time.monotonic()
            print(f"{ended} of {len(keys)} hours", flush=True)
        time.sleep(1)


def counted(instance: RunningInstance, keys: set[str], status: str) -> dict[str, int]:
    """Returns how many hours of each asset have a status, as the UI shows them."""
    counts = {}
    for node in instance.query(STATUSES, keys=[{"path": [name]} for name in ASSETS])["assetNodes"]:
        ranges = [found for found in node["assetPartitionStatuses"]["ranges"] if found["status"] == status]
        hours = [hours_between(hour_of(found["startKey"]), hour_of(found["endKey"])) for found in ranges]
        counts[node["assetKey"]["path"][0]] = len({hour.key for part in hours for hour in part} & keys)
    return counts


def hour_of(key: str) -> Hour:
    """Returns the hour of a key."""
    return Hour(datetime.datetime.strptime(key, HOUR_FORMAT))  # noqa: DTZ007 - UTC without a zone, as in the database


def timeline(instance: dg.DagsterInstance, record: dg.RunRecord) -> dict[str, Any]:
    """Returns when a run was queued, and how long each of its phases took, in seconds."""
    moments: dict[tuple[str, str | None], float] = {}
    for entry in instance.all_logs(record.dagster_run.run_id):
        if entry.dagster_event:
            moments.setdefault((entry.dagster_event.event_type_value, entry.dagster_event.step_key), entry.timestamp)
    queued, starting, started, ended = (
        moments[f"PIPELINE_{name}", None] for name in ("ENQUEUED", "STARTING", "START", "SUCCESS")
    )
    steps = {name: moments["STEP_SUCCESS", name] - moments["STEP_START", name] for name in ASSETS}
    return {
        "queued": queued,
        "phases": {
            "waits for its turn": starting - queued,
            "starts": started - starting,
            **steps,
            "the rest": ended - started - sum(steps.values()),
            "all of it": ended - starting,
        },
    }


def said(instance: dg.DagsterInstance, record: dg.RunRecord) -> list[str]:
    """Returns what a run that has failed says of it."""
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    logs = instance.all_logs(record.dagster_run.run_id, of_type=kinds)
    errors = [getattr(entry.dagster_event.event_specific_data, "error", None) for entry in logs if entry.dagster_event]
    return [error.message.strip() for error in errors if error] or [entry.user_message for entry in logs]


def phases(timelines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the median of each phase of the runs, in seconds."""
    names = timelines[0]["phases"]
    return {name: round(statistics.median(line["phases"][name] for line in timelines), 2) for name in names}


@contextlib.contextmanager
def environment_of(where: Place) -> Iterator[None]:
    """Sets the variables of a place in this process."""
    before = dict(os.environ)
    os.environ.update(where.environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# A year


def year(options: argparse.Namespace) -> dict[str, Any]:
    """Measures everything else beside few hours and beside many, and puts the figures side by side."""
    columns = {str(count): beside(options.server, count, options.items, options.ticks) for count in options.hours}
    few, many = (columns[str(count)] for count in (min(options.hours), max(options.hours)))
    rows = [name for name in few if isinstance(few[name], float)]
    print(f"{'milliseconds':<44}{min(options.hours):>12,}{max(options.hours):>12,}{'ratio':>8}")
    for name in rows:
        print(f"{name:<44}{few[name]:>12,.0f}{many[name]:>12,.0f}{many[name] / few[name]:>8.2f}")
    return {"server": few["server"], **{f"{count} hours": columns[str(count)] for count in options.hours}}


def beside(kind: str | None, count: int, items: int, ticks: int) -> dict[str, Any]:
    """Returns what things cost beside so many hours that have been scored, in milliseconds."""
    end = open_hour()
    hours = hours_between(Hour(end.start - count * HOUR), Hour(end.start - HOUR))
    # The last hour is scored by a real run, of which the others' are copies.
    with place(kind, hours[0]) as where:
        environment = {**os.environ, **where.environment}
        fill(where.engine(), hours[-1:], items)
        run_job(environment, hours[-1])
        filled = copied(where, hours)
        found: dict[str, Any] = {"server": where.server, "seconds to fill": round(filled, 1)}
        found |= milliseconds_of_processes(environment, hours, ticks)
        inside = [sys.executable, "-m", "benchmarks.many_hours", "inside", "--ticks", str(ticks)]
        output = subprocess.run(
            inside, env={**environment, "BATCH_RETRY": "partial"}, check=True, capture_output=True, timeout=600
        )
        found |= json.loads(output.stdout.splitlines()[-1])
        if found.pop("materialised hours") != count:
            raise RuntimeError(f"Dagster does not see the {count} hours that were written.")
        with running_instance(where.home, SETTINGS, where.environment) as instance:
            start = time.monotonic()
            counted(instance, {hour.key for hour in hours}, "MATERIALIZED")
            found["status of all hours in the UI"] = 1000 * (time.monotonic() - start)
            found |= milliseconds_of_launch(where, instance, hours)
    return found


def run_job(environment: Mapping[str, str], hour: Hour) -> float:
    """Returns the milliseconds of `dagster job execute` of an hour."""
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "batch_assets.definitions"]
    command += ["-j", "batch_inference", "--tags", json.dumps({"dagster/partition": hour.key})]
    return milliseconds(lambda: run(command, environment))


def run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs a command in the repository's folder; its output is shown if it fails."""
    done = subprocess.run(
        command,
        check=False,
        env=environment,
        cwd=root_folder(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")


def milliseconds(action: Callable[[], object], times: int = 1) -> float:
    """Returns the median of what something takes."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken)


def copied(where: Place, hours: Sequence[Hour]) -> float:
    """Copies all that the run of the last hour has written to the other hours, and returns the seconds."""
    start, template = time.monotonic(), hours[-1]
    engine = sa.create_engine(where.dagster_url)
    with engine.begin() as connection:
        for name in ("runs", "run_tags", "event_logs"):
            copy_rows(connection, name, template, hours[:-1])
    engine.dispose()
    with where.engine().begin() as connection:
        for name, moment in (("items", "created_datetime"), ("run_summary", "hour")):
            copy_moved(connection, name, moment, len(hours) - 1)
    return time.monotonic() - start


def copy_rows(connection: sa.Connection, name: str, template: Hour, hours: Sequence[Hour]) -> None:
    """Copies rows of Dagster's, with the key of another hour and the id of another run in all their texts."""
    table = sa.Table(name, sa.MetaData(), autoload_with=connection)
    # What the UI, the sensor and backfills look up of old hours; a run's own log is of no concern to another.
    chosen = sa.select(table)
    if name == "event_logs":
        chosen = chosen.where(table.c.asset_key.is_not(None) | table.c.dagster_event_type.like("PIPELINE%"))
    rows = [dict(row) for row in connection.execute(chosen).mappings()]
    run_ids = {row["run_id"] for row in rows if row["run_id"]}
    for position in range(0, len(hours), 100):
        copies = []
        for hour in hours[position : position + 100]:
            texts = {template.key: hour.key}
            # The same id in every table.
            texts |= {old: str(uuid.uuid5(uuid.UUID(old), hour.key)) for old in run_ids}
            copies += [{column: replaced(row[column], texts) for column in row if column != "id"} for row in rows]
        connection.execute(sa.insert(table), copies)


def replaced(value: Any, texts: Mapping[str, str]) -> Any:
    """Returns a value with texts in the place of others."""
    if isinstance(value, str):
        for old, new in texts.items():
            value = value.replace(old, new)
    return value


def copy_moved(connection: sa.Connection, name: str, moment: str, count: int) -> None:
    """Copies the rows of an hour into the hours before it, so many."""
    table = sa.Table(name, sa.MetaData(), autoload_with=connection)
    taken = ("id", "prediction_pending")
    rows = [dict(row) for row in connection.execute(sa.select(*(c for c in table.c if c.name not in taken))).mappings()]
    for back in range(1, count + 1):
        connection.execute(sa.insert(table), [row | {moment: row[moment] - back * HOUR} for row in rows])


def milliseconds_of_processes(environment: Mapping[str, str], hours: Sequence[Hour], ticks: int) -> dict[str, float]:
    """Returns what whole processes take."""
    load = [sys.executable, "-c", "from batch_assets.definitions import defs; defs.get_repository_def()"]
    status = [sys.executable, "-m", "batch_assets.cli", "status", "--hours"]
    return {
        "load the definitions (process)": milliseconds(lambda: run(load, environment), ticks),
        "dagster job execute, nothing to score": milliseconds(lambda: run_job(environment, hours[0]), ticks),
        "batch-assets status of 24 hours (process)": milliseconds(lambda: run([*status, "24"], environment), ticks),
        "batch-assets status of all hours (process)": milliseconds(
            lambda: run([*status, str(len(hours))], environment), ticks
        ),
    }


def milliseconds_of_launch(where: Place, instance: RunningInstance, hours: Sequence[Hour]) -> dict[str, float]:
    """Launches a backfill of all hours, and cancels it once its first run is queued."""
    start = time.monotonic()
    backfill_id = instance.launch_backfill([hour.key for hour in hours])
    launched = time.monotonic() - start
    with environment_of(where), dg.DagsterInstance.get() as here:
        chosen = dg.RunsFilter(tags={"dagster/backfill": backfill_id})
        while not here.get_run_records(chosen, limit=1):
            time.sleep(0.2)
        queued = time.monotonic() - start
        while all(record.start_time is None for record in here.get_run_records(chosen)):
            time.sleep(0.2)
        started = time.monotonic() - start
    instance.query(CANCEL, id=backfill_id)
    return {
        "launch a backfill of all hours": 1000 * launched,
        "until its first run is queued": 1000 * queued,
        "until its first run has started": 1000 * started,
    }


def inside(options: argparse.Namespace) -> dict[str, Any]:
    """Measures what a code server does, in a process of its own: the hours are read when the package is imported."""
    from batch_assets.definitions import defs  # noqa: PLC0415
    from batch_assets.orchestration.checks import build_checks  # noqa: PLC0415
    from batch_assets.pipeline import OF_ENVIRONMENT  # noqa: PLC0415

    repository = defs.get_repository_def()
    engine = engine_for(database_settings(os.environ))
    sensor, schedule = repository.get_sensor_def("retry_hours"), repository.get_schedule_def("hourly_batch_inference")
    found: dict[str, Any] = {}
    with dg.DagsterInstance.get() as instance:
        found["materialised hours"] = len(instance.get_materialized_partitions(dg.AssetKey("run_summary")))

        def sensor_tick() -> int:
            context = dg.build_sensor_context(instance=instance, repository_def=repository)
            return len(sensor.evaluate_tick(context).run_requests or [])

        def schedule_tick() -> None:
            context = dg.build_schedule_context(
                instance=instance,
                repository_def=repository,
                scheduled_execution_time=datetime.datetime.now(datetime.UTC),
            )
            schedule.evaluate_tick(context)

        def check() -> None:
            for one in build_checks(OF_ENVIRONMENT):
                one()

        found["a tick of the sensor, nothing left"] = milliseconds(sensor_tick, options.ticks)
        found["a tick of the schedule"] = milliseconds(schedule_tick, options.ticks)
        found["both checks"] = milliseconds(check, options.ticks)
        spread_out(engine)
        found["a tick of the sensor, late items in 24 hours"] = milliseconds(sensor_tick)
        found["the tick after it"] = milliseconds(sensor_tick, options.ticks)
    return found


def spread_out(engine: sa.Engine) -> None:
    """Has an item come late in each of 24 hours, spread over all of them."""
    with engine.begin() as connection:
        hours = connection.execute(sa.text("SELECT hour FROM run_summary ORDER BY hour")).scalars().all()
        for hour in hours[:: max(1, len(hours) // 24)][:24]:
            moment = datetime.datetime.fromisoformat(str(hour)) + datetime.timedelta(minutes=59)
            connection.execute(
                sa.text("INSERT INTO items (`values`, created_datetime) VALUES ('[5.1,3.5,1.4,0.2]', :moment)"),
                {"moment": moment.strftime("%Y-%m-%d %H:%M:%S")},
            )


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    month = commands.add_parser("backfill", help="a backfill of hours from its launch to its end")
    month.add_argument("--hours", type=int, default=720, help="how many hours")
    month.add_argument("--items", type=int, default=1000, help="items of each hour")
    month.set_defaults(measure=backfill)
    whole_year = commands.add_parser("year", help="everything else beside few hours and beside many")
    whole_year.add_argument("--hours", type=int, nargs="+", default=[24, 8760], help="how many hours there are")
    whole_year.add_argument("--items", type=int, default=10, help="items of each hour")
    whole_year.add_argument("--ticks", type=int, default=5, help="how often each is measured")
    whole_year.set_defaults(measure=year)
    within = commands.add_parser("inside", help="what `year` has a process of its own measure")
    within.add_argument("--ticks", type=int, default=5)
    within.set_defaults(measure=inside, json=None)
    for command in (month, whole_year):
        command.add_argument("--server", choices=["mariadb", "mysql"], help="without it that of MYSQL_SERVER")
        command.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    # Byte code is written, as it is wherever the package is installed.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    document = options.measure(options)
    print(json.dumps(document))
    if options.json:
        options.json.write_text(json.dumps(document, indent=2), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
