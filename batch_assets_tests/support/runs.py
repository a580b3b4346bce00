"""Runs and backfills of a running instance, started and looked at as the UI does."""

from collections.abc import Sequence
from typing import Any

from batch_assets_tests.support.instance import RunningInstance
from batch_assets_tests.support.pipeline import HOUR

BACKFILL = """query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    __typename
    ... on PartitionBackfill { status runs(limit: 100) { status tags { key value } } }
    ... on PythonError { message }
  }
}"""
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


def backfilled(instance: RunningInstance, hours: Sequence[str], retry: str = "partial", **tags: str) -> dict[str, Any]:
    """Starts a backfill, with tags as the UI's form takes them, and returns what became of it."""
    ended: dict[str, Any] = instance.wait(
        BACKFILL,
        lambda answer: (
            not answer["partitionBackfillOrError"].get("status", "").startswith(("REQUESTED", "CANCEL", "FAILI"))
        ),
        seconds=240,
        id=instance.launch_backfill(hours, {"batch_assets/retry": retry, **tags}),
    )["partitionBackfillOrError"]
    return ended


def launched(instance: RunningInstance, hour: str = HOUR, **tags: str) -> str:
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


def of_hour(answer: dict[str, Any], hour: str = HOUR) -> list[dict[str, Any]]:
    """The runs of the hour; at minute 19 the schedule of the instance adds one of another."""
    tags = [{"key": key, "value": hour} for key in ("dagster/partition", "dagster/asset_partition_range_start")]
    return [run for run in answer["runsOrError"]["results"] if any(tag in run["tags"] for tag in tags)]
