"""Workers that end before their hour does, under a real daemon: who crashed is started again, who was ended is not."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_assets.database.schema.setup import initialize_database
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import ITEMS, engine_from_environment
from batch_assets_tests.support.instance import ROOT, RunningInstance, running_instance
from batch_assets_tests.support.pipeline import (
    START,
    Counts,
    assert_hour_adds_up,
    insert_items,
    wait_for_the_first_prediction,
)
from batch_assets_tests.support.runs import RUNS, TERMINATE, launched, of_hour
from batch_assets_tests.support.servers import Server

# On MySQL, test_kubernetes.py has workers end in all of these ways.
pytestmark = [pytest.mark.slow, pytest.mark.one_server, pytest.mark.timeout(1200)]

LOGS = """query Logs($run: ID!) {
  logsForRun(runId: $run) { ... on EventConnection { events { ... on MessageEvent { message } } } }
}"""


def pid_of(instance: RunningInstance, run: str) -> int:
    """The process that executes a run."""
    answer = instance.wait(LOGS, lambda answer: "(pid: " in str(answer), seconds=90, run=run)
    found = re.search(r"\(pid: (\d+)\)", str(answer))
    assert found, answer
    return int(found[1])


@pytest.fixture
def running(server_environment: dict[str, str], server: Server, tmp_path: Path) -> Iterator[RunningInstance]:
    """Webserver and daemon, without the sensor, which would help too."""
    initialize_database(engine_from_environment(), ITEMS)
    with server.database() as dagster_database:
        environment = {"MYSQL_DAGSTER_DATABASE": dagster_database, "BATCH_RETRY": "leave"}
        with running_instance(tmp_path / "dagster", ROOT / "dagster.yaml", environment) as instance:
            yield instance


def test_a_worker_that_is_killed_is_started_again_by_the_daemon(
    running: RunningInstance, sql: Sql, many_items: tuple[list[str], object]
) -> None:
    texts, _ = many_items
    insert_items(sql, texts)
    first = launched(running)
    worker = pid_of(running, first)
    wait_for_the_first_prediction(sql)
    os.kill(worker, signal.SIGKILL)
    answer = running.wait(RUNS, lambda answer: "SUCCESS" in str(of_hour(answer)), seconds=180)
    runs = of_hour(answer)
    assert {run["runId"]: run["status"] for run in runs}[first] == "FAILURE"
    (again,) = [run for run in runs if run["runId"] != first]
    assert again["parentRunId"] == first
    assert assert_hour_adds_up(sql) == Counts(len(texts), len(texts), 0, 0)
    summary = sql("SELECT items, predicted, pending FROM run_summary WHERE hour = %s", START)
    assert summary == [(len(texts), len(texts), 0)]


def test_a_run_that_somebody_terminates_ends_and_lets_the_hour_go(
    running: RunningInstance, sql: Sql, many_items: tuple[list[str], object]
) -> None:
    texts, _ = many_items
    insert_items(sql, texts * 3)
    run = launched(running)
    wait_for_the_first_prediction(sql)
    assert running.query(TERMINATE, run=run)["terminateRun"]["__typename"] == "TerminateRunSuccess"
    answer = running.wait(RUNS, lambda answer: "CANCELED" in str(of_hour(answer)), seconds=180)
    assert [(found["runId"], found["status"]) for found in of_hour(answer)] == [(run, "CANCELED")]
    assert sql("SELECT COUNT(*) FROM hour_locks") == [(0,)]
    counts = assert_hour_adds_up(sql)
    assert 0 < counts.pending < 3 * len(texts)
