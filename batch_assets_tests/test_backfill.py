"""Backfills as the UI starts them: over GraphQL, through a real webserver and daemon."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_assets.database.engine import engine_from_environment
from batch_assets.database.schema import initialize_database
from batch_assets_tests.conftest import Sql
from batch_assets_tests.instance import ROOT, Instance, running_instance

HOURS = ["2026-11-01-05:00", "2026-11-01-06:00", "2026-11-01-07:00", "2026-11-01-08:00"]
ASSETS = ["raw_items", "predictions", "run_summary"]
LAUNCH = """mutation Launch($parameters: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $parameters) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
BACKFILL = """query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    __typename
    ... on PartitionBackfill { status runs(limit: 100) { status tags { key value } } }
    ... on PythonError { message }
  }
}"""
STATUSES = """query Statuses($keys: [AssetKeyInput!]!) {
  assetNodes(assetKeys: $keys) {
    assetKey { path }
    assetPartitionStatuses { ... on TimePartitionStatuses { ranges { startKey endKey status } } }
  }
}"""
SCHEDULES = """{
  repositoriesOrError { ... on RepositoryConnection { nodes {
    schedules { name cronSchedule scheduleState { status } }
  } } }
}"""


@pytest.fixture
def instance(
    database_environment: dict[str, str], request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Instance]:
    """An instance on the database: with the dagster.yaml of MySQL on the server, else with the embedded one."""
    initialize_database(engine_from_environment())
    with contextlib.ExitStack() as stack:
        settings, environment = ROOT / "batch_assets" / "embedded_dagster.yaml", {}
        if "MYSQL_SERVER" in database_environment:
            settings = ROOT / "dagster.yaml"
            dagster_database = stack.enter_context(request.getfixturevalue("server").database())
            environment = {"MYSQL_DAGSTER_DATABASE": dagster_database}
        yield stack.enter_context(running_instance(tmp_path / "dagster", settings, environment))


def test_a_backfill_of_several_hours_scores_each_of_them(instance: Instance, sql: Sql) -> None:
    values = '"values"' if "MYSQL_SERVER" not in os.environ else "`values`"
    for hour in ("05:00:00", "05:59:59", "06:30:00", "08:00:00", "09:00:00"):
        sql(
            f"INSERT INTO items ({values}, created_datetime) VALUES (%s, %s)",
            "[5.1, 3.5, 1.4, 0.2]",
            f"2026-11-01 {hour}",
        )
    sql(f"INSERT INTO items ({values}, created_datetime) VALUES (%s, %s)", '"bad"', "2026-11-01 06:00:00")

    parameters = {"assetSelection": [{"path": [name]} for name in ASSETS], "partitionNames": HOURS}
    launched = instance.query(LAUNCH, parameters=parameters)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    ended = instance.wait(
        BACKFILL,
        lambda answer: not answer["partitionBackfillOrError"].get("status", "").startswith(("REQUESTED", "CANCELING")),
        seconds=240,
        id=launched["backfillId"],
    )["partitionBackfillOrError"]

    assert ended["status"] == "COMPLETED_SUCCESS", f"{ended}\n{instance.log()}"
    assert [run["status"] for run in ended["runs"]] == ["SUCCESS"] * len(HOURS)
    nodes = instance.query(STATUSES, keys=[{"path": [name]} for name in ASSETS])["assetNodes"]
    for node in nodes:
        # At minute 19 the instance's own schedule adds the last hour.
        ranges = [found for found in node["assetPartitionStatuses"]["ranges"] if found["startKey"] <= HOURS[-1]]
        assert ranges == [{"startKey": HOURS[0], "endKey": HOURS[-1], "status": "MATERIALIZED"}]
    assert sql(
        "SELECT created_datetime < '2026-11-01 09:00:00', COUNT(*), COUNT(prediction) FROM items GROUP BY 1 ORDER BY 1"
    ) == [
        (0, 1, 0),
        (1, 5, 4),
    ]
    summaries = sql("SELECT items, predicted, failed, pending FROM run_summary WHERE hour < '2026-11-02' ORDER BY hour")
    assert summaries == [(2, 2, 0, 0), (2, 1, 1, 0), (0, 0, 0, 0), (1, 1, 0, 0)]

    [repository] = instance.query(SCHEDULES)["repositoriesOrError"]["nodes"]
    assert repository["schedules"] == [
        {"name": "hourly_batch_inference", "cronSchedule": "19 * * * *", "scheduleState": {"status": "RUNNING"}}
    ]
