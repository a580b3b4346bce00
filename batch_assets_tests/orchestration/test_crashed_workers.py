"""Workers that end before their hour does, under a real daemon: who crashed is started again, who was ended is not."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_assets.database.schema.setup import initialize_database
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import ITEMS, engine_from_environment
from batch_assets_tests.support.instance import ROOT, Instance, running_instance
from batch_assets_tests.support.pipeline import HOUR, START, Counts, assert_hour_adds_up, insert_items
from batch_assets_tests.support.servers import Server

LAUNCH = """mutation Launch($parameters: ExecutionParams!) {
  launchRun(executionParams: $parameters) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
TERMINATE = "mutation Terminate($run: String!) { terminateRun(runId: $run) { __typename } }"
RUNS = """{
  runsOrError { ... on Runs { results { runId parentRunId status startTime endTime tags { key value } } } }
}"""
LOGS = """query Logs($run: ID!) {
  logsForRun(runId: $run) { ... on EventConnection { events { ... on MessageEvent { message } } } }
}"""


def of_hour(answer: dict[str, Any], hour: str = HOUR) -> list[dict[str, Any]]:
    """The runs of the hour; at minute 19 the schedule of the instance adds one of another."""
    tags = [{"key": key, "value": hour} for key in ("dagster/partition", "dagster/asset_partition_range_start")]
    return [run for run in answer["runsOrError"]["results"] if any(tag in run["tags"] for tag in tags)]


def pid_of(instance: Instance, run: str) -> int:
    """The process that executes a run."""
    answer = instance.wait(LOGS, lambda answer: "(pid: " in str(answer), seconds=90, run=run)
    found = re.search(r"\(pid: (\d+)\)", str(answer))
    assert found, answer
    return int(found[1])


@pytest.fixture
def instance(server_environment: dict[str, str], server: Server, tmp_path: Path) -> Iterator[Instance]:
    """Webserver and daemon, without the sensor, which would help too."""
    initialize_database(engine_from_environment(), ITEMS)
    with server.database() as dagster_database:
        environment = {"MYSQL_DAGSTER_DATABASE": dagster_database, "BATCH_RETRY": "leave"}
        with running_instance(tmp_path / "dagster", ROOT / "dagster.yaml", environment) as instance:
            yield instance


def launched(instance: Instance, hour: str = HOUR, **tags: str) -> str:
    """Starts the job for the hour, as the UI does, and returns the run."""
    parameters = {
        "selector": {
            "jobName": "batch_inference",
            "repositoryName": "__repository__",
            "repositoryLocationName": "batch_assets.definitions",
        },
        "executionMetadata": {
            "tags": [{"key": key, "value": value} for key, value in {"dagster/partition": hour, **tags}.items()]
        },
    }
    answer = instance.query(LAUNCH, parameters=parameters)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])


def wait_for_the_first_prediction(sql: Sql, start: str = START) -> None:
    scored = "SELECT id FROM items WHERE created_datetime >= %s AND prediction IS NOT NULL LIMIT 1"
    while not sql(scored, start):
        time.sleep(0.01)


def test_a_worker_that_is_killed_is_started_again_by_the_daemon(
    instance: Instance, sql: Sql, many_items: tuple[list[str], object]
) -> None:
    texts, _ = many_items
    insert_items(sql, texts)
    first = launched(instance)
    worker = pid_of(instance, first)
    wait_for_the_first_prediction(sql)
    os.kill(worker, signal.SIGKILL)
    answer = instance.wait(RUNS, lambda answer: "SUCCESS" in str(of_hour(answer)), seconds=180)
    runs = of_hour(answer)
    assert {run["runId"]: run["status"] for run in runs}[first] == "FAILURE"
    (again,) = [run for run in runs if run["runId"] != first]
    assert again["parentRunId"] == first
    assert assert_hour_adds_up(sql) == Counts(len(texts), len(texts), 0, 0)
    summary = sql("SELECT items, predicted, pending FROM run_summary WHERE hour = %s", START)
    assert summary == [(len(texts), len(texts), 0)]


def test_a_run_that_somebody_terminates_ends_and_lets_the_hour_go(
    instance: Instance, sql: Sql, many_items: tuple[list[str], object]
) -> None:
    texts, _ = many_items
    insert_items(sql, texts * 3)
    run = launched(instance)
    wait_for_the_first_prediction(sql)
    assert instance.query(TERMINATE, run=run)["terminateRun"]["__typename"] == "TerminateRunSuccess"
    answer = instance.wait(RUNS, lambda answer: "CANCELED" in str(of_hour(answer)), seconds=180)
    assert [(found["runId"], found["status"]) for found in of_hour(answer)] == [(run, "CANCELED")]
    assert sql("SELECT COUNT(*) FROM hour_locks") == [(0,)]
    counts = assert_hour_adds_up(sql)
    assert 0 < counts.pending < 3 * len(texts)
