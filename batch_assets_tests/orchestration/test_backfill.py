"""Backfills as the UI starts them: over GraphQL, through a real webserver and daemon."""

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_assets.database.schema.setup import initialize_database
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import ITEMS, engine_from_environment
from batch_assets_tests.support.instance import ASSETS, ROOT, RunningInstance, running_instance
from batch_assets_tests.support.pipeline import GOOD, assert_hour_adds_up, insert_items
from batch_assets_tests.support.runs import backfilled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

HOURS = ["2026-11-01-05:00", "2026-11-01-06:00", "2026-11-01-07:00", "2026-11-01-08:00"]
STATUSES = """query Statuses($keys: [AssetKeyInput!]!) {
  assetNodes(assetKeys: $keys) {
    assetKey { path }
    assetPartitionStatuses { ... on TimePartitionStatuses { ranges { startKey endKey status } } }
  }
}"""
SCHEDULES = """{
  repositoriesOrError { ... on RepositoryConnection { nodes {
    schedules { name cronSchedule scheduleState { status } } sensors { name sensorState { status } }
  } } }
}"""


@pytest.fixture
def running(
    database_environment: dict[str, str], request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[RunningInstance]:
    """An instance on the database: with the dagster.yaml of MySQL on the server, else with the embedded one."""
    initialize_database(engine_from_environment(), ITEMS)
    with contextlib.ExitStack() as stack:
        settings, environment = ROOT / "batch_assets" / "embedded_dagster.yaml", {}
        if "MYSQL_SERVER" in database_environment:
            settings = ROOT / "dagster.yaml"
            dagster_database = stack.enter_context(request.getfixturevalue("server").database())
            environment = {"MYSQL_DAGSTER_DATABASE": dagster_database}
        environment |= getattr(request, "param", {})
        yield stack.enter_context(running_instance(tmp_path / "dagster", settings, environment))


def statuses(instance: RunningInstance, last: str) -> dict[str, list[tuple[str, str, str]]]:
    """The ranges of hours of each asset by status, as the UI shows them."""
    nodes = instance.query(STATUSES, keys=[{"path": [name]} for name in ASSETS])["assetNodes"]
    return {
        node["assetKey"]["path"][0]: [
            (found["startKey"], found["endKey"], found["status"])
            for found in node["assetPartitionStatuses"]["ranges"]
            # At minute 19 the instance's own schedule adds the last hour.
            if found["startKey"] <= last
        ]
        for node in nodes
    }


# Without what the sensor would score besides.
@pytest.mark.parametrize("running", [{"BATCH_RETRY": "leave"}], indirect=True, ids=["leave"])
def test_a_backfill_of_several_hours_scores_each_of_them(running: RunningInstance, sql: Sql) -> None:
    for hour in ("05:00:00", "05:59:59", "06:30:00", "08:00:00", "09:00:00"):
        sql(
            "INSERT INTO items (`values`, created_datetime) VALUES (%s, %s)",
            GOOD[0],
            f"2026-11-01 {hour}",
        )
    sql("INSERT INTO items (`values`, created_datetime) VALUES (%s, %s)", '"bad"', "2026-11-01 06:00:00")

    ended = backfilled(running, HOURS, retry="whole_batch")
    assert ended["status"] == "COMPLETED_SUCCESS", f"{ended}\n{running.log()}"
    # All hours in one run, each of them recorded.
    assert [run["status"] for run in ended["runs"]] == ["SUCCESS"]
    assert statuses(running, HOURS[-1]) == {key: [(HOURS[0], HOURS[-1], "MATERIALIZED")] for key in ASSETS}
    assert sql(
        "SELECT created_datetime < '2026-11-01 09:00:00', COUNT(*), COUNT(prediction) FROM items GROUP BY 1 ORDER BY 1"
    ) == [
        (0, 1, 0),
        (1, 5, 4),
    ]
    assert sql("SELECT DISTINCT retry FROM run_summary WHERE items > 0 AND hour < '2026-11-02'") == [("whole_batch",)]
    summaries = sql("SELECT items, predicted, failed, pending FROM run_summary WHERE hour < '2026-11-02' ORDER BY hour")
    assert summaries == [(2, 2, 0, 0), (2, 1, 1, 0), (0, 0, 0, 0), (1, 1, 0, 0)]

    [repository] = running.query(SCHEDULES)["repositoriesOrError"]["nodes"]
    assert repository["sensors"] == [
        {"name": name, "sensorState": {"status": "RUNNING"}} for name in ("alerts", "measure_quality", "retry_hours")
    ]
    assert repository["schedules"] == [
        {"name": name, "cronSchedule": "19 * * * *", "scheduleState": {"status": status}}
        for name, status in (("hourly_batch_inference", "RUNNING"), ("hourly_canary", "STOPPED"))
    ]


# The daemon looks at backfills every 30 seconds only, so the server is enough.
@pytest.mark.one_server
@pytest.mark.parametrize("database_environment", ["server"], indirect=True)
@pytest.mark.parametrize(
    "running", [{"BATCH_MAX_FAILED_ITEMS": "0", "BATCH_RETRY": "leave"}], indirect=True, ids=["threshold"]
)
def test_of_48_hours_the_one_that_cannot_be_scored_is_red_and_green_once_it_is_mended(
    running: RunningInstance, sql: Sql
) -> None:
    start = datetime.datetime(2026, 11, 3)  # noqa: DTZ001 - UTC without a zone, as in the table
    moments = [start + datetime.timedelta(hours=number) for number in range(48)]
    hours = [f"{moment:%Y-%m-%d-%H:%M}" for moment in moments]
    for number, moment in enumerate(moments):
        insert_items(sql, GOOD[: 1 + number % 3], f"{moment + datetime.timedelta(minutes=59):%Y-%m-%d %H:%M:%S}")
    bad = 12
    (key,) = insert_items(sql, ["[1, 2]"], f"{moments[bad]:%Y-%m-%d %H:%M:%S}")

    ended = backfilled(running, hours)
    assert ended["status"] == "COMPLETED_FAILED", f"{ended}\n{running.log()}"
    assert sorted(run["status"] for run in ended["runs"]) == ["FAILURE", "SUCCESS"]
    others = [
        (hours[0], hours[bad - 1], "MATERIALIZED"),
        (hours[bad], hours[bad], "FAILED"),
        (hours[bad + 1], hours[-1], "MATERIALIZED"),
    ]
    assert statuses(running, hours[-1]) == {
        "raw_items": [(hours[0], hours[-1], "MATERIALIZED")],
        "predictions": others,
        "run_summary": others,
    }
    summed_up = "SELECT COUNT(*), SUM(items), SUM(predicted), SUM(pending) FROM run_summary WHERE hour < '2026-11-05'"
    assert sql(summed_up) == [(47, 95, 95, 0)]

    sql("UPDATE items SET `values` = %s WHERE id = %s", GOOD[0], key)
    before: dict[int, object] = dict(sql("SELECT id, updated_datetime FROM items WHERE id <> %s", key))
    again = backfilled(running, [hours[bad]])
    assert again["status"] == "COMPLETED_SUCCESS", f"{again}\n{running.log()}"
    assert statuses(running, hours[-1]) == {key: [(hours[0], hours[-1], "MATERIALIZED")] for key in ASSETS}
    assert dict(sql("SELECT id, updated_datetime FROM items WHERE id <> %s", key)) == before
    for moment in moments:
        counts = assert_hour_adds_up(sql, str(moment), str(moment + datetime.timedelta(hours=1)))
        assert counts.items == counts.predicted > 0
